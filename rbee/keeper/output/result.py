"""How a command can end: with a result, or interrupted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError


class Result(NamedTuple):
    """`data` is what `--json` prints; `text` is the same for people, and `notes` go to stderr beside it.

    A command that streams its result to stdout gives none of them. `failure` is raised once all that is shown: the
    result is there, and what came after it went wrong.
    """

    data: object = None
    text: str = ""
    notes: tuple[str, ...] = ()
    failure: RbeeError | None = None


class Interrupted(Exception):
    """A signal ended the command; everything it had started is gone."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
