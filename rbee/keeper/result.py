"""How a command can end: with a result, or interrupted."""

from __future__ import annotations

import signal
from typing import NamedTuple


class Result(NamedTuple):
    """`data` is what `--json` prints; `text` is the same for people, and `notes` go to stderr beside it.

    A command that streams its result to stdout gives none of them.
    """

    data: object = None
    text: str = ""
    notes: tuple[str, ...] = ()


class Interrupted(Exception):
    """A signal ended the command; everything it had started is gone."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
