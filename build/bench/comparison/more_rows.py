"""The rows in which the sides are started, ended or hindered while they are measured."""

import asyncio
import contextlib
import secrets
import time
from pathlib import Path

from comparison.client import Way, ask, together
from comparison.measuring import Found, Number, Options, in_turns, others_share, tell
from comparison.models import Words
from comparison.rows import CONVERSATION, LARGE, LLAMA, MEDIUM, QUEEN, SMALL, WORKER, Conversation, Row
from comparison.sides import Load, busy_processors, ours, theirs

COMPUTED, OFF = "computed", "off"
EDITED = 300
"""Lines of the text that is to be repeated with one change."""


def _words(model: Path) -> Words:
    return Words(model, secrets.token_hex(8))


def _after_reload(found: Found, model: Path, options: Options) -> None:
    """The first turn is what computing it takes."""
    with ours(Load(model, 4, 2048, options.threads)) as side:
        for number in range(options.rounds):
            words = _words(model)
            asyncio.run(ask(side.queen, side.queen.text(words.text(16), 4)))  # it is loaded
            found.others.append(others_share())
            conversation = Conversation(words.text(CONVERSATION))
            found.add("after reload", COMPUTED, asyncio.run(conversation.turn(side.queen, 16)))
            conversation.say(words.text(32))
            side.unload()
            asyncio.run(ask(side.queen, side.queen.text(words.text(16), 4)))
            found.add("after reload", QUEEN, asyncio.run(conversation.turn(side.queen, 4)))
            tell(f"{found.row} {found.model}: round {number + 1} of {options.rounds}")


def _total_rate(way: Way, words: Words, count: int) -> float:
    answers = asyncio.run(together(way, [way.text(words.text(64), 64) for _ in range(count)]))
    seconds = max(answer.last for answer in answers) - min(answer.asked for answer in answers)
    return sum(answer.tokens for answer in answers) / seconds


def _busy(found: Found, model: Path, options: Options) -> None:
    """Ours is also measured with each number of threads that is fewer, of which the best counts."""
    with contextlib.ExitStack() as stack:
        fixed: list[Way] = []
        for threads in range(1, options.threads + 1):
            side = stack.enter_context(ours(Load(model, 4, 1024, threads)))
            name = QUEEN if threads == options.threads else f"{threads} thread{'s' * (threads > 1)}"
            fixed.append(side.queen._replace(name=name))
        ways = fixed
        if options.program is not None:
            load = Load(model, 4, 1024, options.threads)
            ways = [*ways, stack.enter_context(theirs(options.program, load, *options.further)).way]
        for number, way in in_turns(ways, options.rounds, warm_up=True):
            words = _words(model)
            if number < 0:
                asyncio.run(ask(way, way.text(words.text(16), 4)))
                continue
            found.others.append(others_share())
            with busy_processors():
                for count in (1, 4):
                    found.add(f"{count} busy", way.name, _total_rate(way, words, count))
            tell(f"{found.row} {found.model}: round {number + 1} of {options.rounds}, {way.name}")
    for count in (1, 4):
        rates = found.values[f"{count} busy"]
        for number in range(options.rounds):
            best = max(values[number] for name, values in rates.items() if name != LLAMA)
            found.add(f"{count} best/{QUEEN}", QUEEN, best / rates[QUEEN][number])


def _memory(found: Found, model: Path, options: Options) -> None:
    load = Load(model, 4, 4096, options.threads)
    for _ in range(options.rounds):
        words = _words(model)
        with ours(load) as side:
            asyncio.run(ask(side.queen, side.queen.text(words.text(64), 16)))
            found.add("resident", WORKER, side.resident_mb())
        if options.program is not None:
            with theirs(options.program, load, *options.further) as other:
                asyncio.run(ask(other.way, other.way.text(words.text(64), 16)))
                found.add("resident", LLAMA, other.resident_mb())


def _cold(found: Found, model: Path, options: Options) -> None:
    """The queen and her hive run, and the worker does not; llama-server is started. The file is in memory for both."""
    load = Load(model, 4, 4096, options.threads)
    with ours(load) as side:
        asyncio.run(ask(side.queen, side.queen.text(" x", 1)))
        for number in range(options.rounds):
            words = _words(model)
            for name in (QUEEN, LLAMA) if number % 2 == 0 else (LLAMA, QUEEN):
                side.unload()
                found.others.append(others_share())
                if name == QUEEN:
                    answer = asyncio.run(ask(side.queen, side.queen.text(words.text(8), 2)))
                    found.add("cold", name, answer.first)
                elif options.program is not None:
                    began = time.perf_counter()
                    with theirs(options.program, load, *options.further) as other:
                        answer = asyncio.run(ask(other.way, other.way.text(words.text(8), 2)))
                        found.add("cold", name, answer.asked + answer.first - began)
            tell(f"{found.row} {found.model}: round {number + 1} of {options.rounds}")


def _edit(words: Words) -> str:
    lines = [f"    value_{number} = compute(value_{number - 1},{words.text(2)})" for number in range(1, EDITED + 1)]
    code = "\n".join(lines)
    return f"Repeat this code, but rename value_7 to total.\n\n{code}\n\nThe same code with the change:\n\n{code[:200]}"


def _speculation(found: Found, model: Path, options: Options) -> None:
    load = Load(model, 1, 8192, options.threads)
    with contextlib.ExitStack() as stack:
        ways = []
        for name, value in ((OFF, "false"), (QUEEN, "true")):
            side = stack.enter_context(ours(load, RBEE_WORKER_SPECULATION=value))
            ways.append(side.queen._replace(name=name))
        for number, way in in_turns(ways, options.rounds, warm_up=True):
            words = _words(model)
            found.others.append(others_share())
            edited = asyncio.run(ask(way, way.text(_edit(words), 400)))
            free = asyncio.run(ask(way, way.text(words.text(32), 128)))
            if number >= 0:
                found.add("edit", way.name, edited.rate)
                found.add("free text", way.name, free.rate)
                tell(f"{found.row} {found.model}: round {number + 1} of {options.rounds}, {way.name}")


ROWS = (
    Row(
        "reload",
        "second turn of a conversation of 1,000 tokens after unload and load of the worker, first token",
        (SMALL,),
        (Number("after reload", "s", "less", {QUEEN: 10.0}),),
        _after_reload,
        baseline=COMPUTED,
    ),
    Row(
        "busy",
        "one busy program on each processor, prompts of 64 words, 64 tokens each",
        (SMALL,),
        (
            *(Number(f"{count} busy", "tokens/s", "more", {QUEEN: 0.9}) for count in (1, 4)),
            *(Number(f"{count} best/{QUEEN}", "", "less", {}, most=1 / 0.9) for count in (1, 4)),
        ),
        _busy,
    ),
    Row(
        "speculation",
        f"speculation: {EDITED} lines repeated with one change, and free text",
        (SMALL,),
        (
            Number("edit", "tokens/s", "more", {QUEEN: 1.3}),
            Number("free text", "tokens/s", "more", {QUEEN: 0.97}),
        ),
        _speculation,
        baseline=OFF,
    ),
    Row(
        "memory",
        "resident memory of the worker after one request",
        (SMALL, MEDIUM),
        (Number("resident", "MB", "less", {WORKER: 1 / 1.1}),),
        _memory,
    ),
    Row(
        "cold",
        "nothing loaded, request to first token; llama-server from its start",
        (LARGE,),
        (Number("cold", "s", "less", {QUEEN: 1 / 1.2}),),
        _cold,
    ),
)
