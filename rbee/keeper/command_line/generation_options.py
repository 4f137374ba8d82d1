"""The options of the commands that generate text: what, how and where."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rbee.adapters.arguments import Once, fraction, time_up_to, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.arguments import Parser


def add_infer_options(parser: Parser) -> None:
    add = parser.add_argument_group("what to generate").add_argument
    add(
        *("-p", "--prompt"),
        metavar="TEXT",
        action=Once,
        help="the question, or the text to continue; text that is piped in follows it",
    )
    _model_option(add)
    _generation_options(add)
    add("--raw", action="store_true", help="continue the prompt even if the model has a chat template")
    _sampling_options(parser)
    add_where_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of the text")


def add_chat_options(parser: Parser) -> None:
    add = parser.add_argument_group("what to generate").add_argument
    _model_option(add)
    _generation_options(add)
    _sampling_options(parser)
    add_where_options(parser)


def add_run_options(parser: Parser) -> None:
    parser.usage = "rbee run MODEL [PROMPT…] [options]"
    parser.set_defaults(raw=False)
    parser.add_argument("model", metavar="MODEL", help="the model, or the path of its file")
    parser.add_argument(
        "words", metavar="PROMPT", nargs="*", default=[], help="the question; without one, and on a terminal, a chat"
    )
    _generation_options(parser.add_argument_group("what to generate").add_argument)
    _sampling_options(parser)
    add_where_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of the text")


def _model_option(add: Callable[..., object]) -> None:
    add(
        *("-m", "--model"),
        metavar="REF",
        action=Once,
        help="the model, or the path of its file (default: from the settings, else the bundled one)",
    )


def _generation_options(add: Callable[..., object]) -> None:
    add("--system", metavar="TEXT", action=Once, help="tell the model beforehand how to answer")
    add(
        "--max-tokens",
        metavar="N",
        type=whole(1, 2**31 - 1, without="without it there is no limit"),
        help="stop after N tokens (default: when the model ends, or its context is full)",
    )
    add("--stop", metavar="TEXT", action="append", help="stop before this text; repeatable")


def _sampling_options(parser: Parser) -> None:
    add = parser.add_argument_group("how to choose the next token").add_argument
    add(
        "--temperature",
        metavar="X",
        default=0.7,
        type=fraction(0, 2),
        help="0 always takes the likeliest token (default: 0.7)",
    )
    add("--top-k", metavar="N", type=whole(0, 1_000_000), help="choose among the N likeliest tokens; 0: among all")
    add(
        "--top-p",
        metavar="X",
        type=fraction(0, 1, above=True),
        help="choose among the likeliest whose probabilities add up to X",
    )
    add(
        "--min-p",
        metavar="X",
        type=fraction(0, 1),
        help="choose among tokens at least X times as likely as the likeliest",
    )
    add("--seed", metavar="N", type=whole(0, 2**32 - 2), help="the same seed yields the same text")


def add_where_options(parser: Parser) -> None:
    """Add the options that say where a model runs, and with how much room."""
    add = parser.add_argument_group("where to run").add_argument
    add("--node", metavar="NAME", action=Once, help="the node (default: from the settings, else the queen chooses)")
    add("--backend", metavar="NAME", type=str.lower, help="cpu, cuda, …; see `rbee detect`")
    add("--device", metavar="N", type=_device, help="the index of the backend's device")
    add(
        "--context",
        metavar="N",
        type=whole(16, 1 << 24),
        help="have room for N tokens, prompt and answer together, as far as the node's memory goes (default: as "
        "`rbee models show` says)",
    )
    add(
        "--wait",
        metavar="TIME",
        default=600.0,
        type=time_up_to(3600),
        help="if all workers are busy, wait in line for at most TIME, as 90 or 10m (default: 600 s); "
        "0: try again after 1, 2 and 4 s, then give up",
    )


def _device(text: str) -> int:
    """Return the index of a device; `rbee detect` and the lists show its backend with it."""
    backend, colon, index = text.rpartition(":")
    if colon and backend.isalpha() and index.isdigit():
        raise argparse.ArgumentTypeError(f"the index alone is expected: --backend {backend} --device {index}")
    if text.isalpha():
        raise argparse.ArgumentTypeError(f"the index of a device is expected; --backend {text} chooses a backend")
    return whole(0, 1023)(text)
