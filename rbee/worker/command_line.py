"""Reads the command line of a worker."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbee.adapters import arguments
from rbee.adapters.arguments import HelpAction, Parser
from rbee.wire.common import CACHE_TYPES


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options; ends the process where they are wrong, or where help is wanted."""
    parser = Parser(
        prog="rbee worker",
        description="Run one model. The hive starts its workers; users never need to.\n",
    )
    parser.add_argument("--id", metavar="UUID", required=True, help="the worker's UUID")
    parser.add_argument("--model-ref", metavar="REF", required=True, help="the model's reference")
    parser.add_argument("--model-path", metavar="FILE", required=True, type=Path, help="the model's GGUF file")
    parser.add_argument("--backend", metavar="NAME", default="cpu", help="cpu, cuda, … (default: cpu)")
    parser.add_argument(
        "--device", metavar="N", type=int, default=0, help="the index of the backend's device (default: 0)"
    )
    parser.add_argument("--slots", metavar="N", type=int, help="the number of requests served at once")
    parser.add_argument("--context", metavar="N", type=int, help="the tokens that each of these requests is sure of")
    parser.add_argument("--longest", metavar="N", type=int, help="the most tokens of one request (default: as many)")
    parser.add_argument("--kv", metavar="TYPE", choices=CACHE_TYPES, default="f16", help="f16, q8_0 or q4_0")
    parser.add_argument(
        "--memory", metavar="BYTES", type=int, default=0, help="the memory that the hive has reserved for it"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="the number of compute threads")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--advertise", metavar="HOST", help="host name or address in the worker's URL")
    parser.add_argument("--port-from", metavar="N", type=int, help="the first port to try")
    parser.add_argument("--hive-url", metavar="URL", required=True, help="the hive to report to")
    parser.add_argument("--log", metavar="FILE", type=Path, help="the log file (default: stderr)")
    parser.add_argument("--config", metavar="FILE", help="read settings from this file")
    parser.add_argument("--ephemeral", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action=HelpAction)
    return arguments.read(parser, argv)
