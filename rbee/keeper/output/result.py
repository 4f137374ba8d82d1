"""The two ways in which a command ends: with a result, or interrupted by a signal."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError


class Result(NamedTuple):
    """`data` is what `--json` prints, `text` the same for people; `notes` go to stderr.

    A command that streams its result to stdout leaves them empty. `failure` is raised after all of them were shown:
    the result is complete, and something after it went wrong.
    """

    data: object = None
    text: str = ""
    notes: tuple[str, ...] = ()
    failure: RbeeError | None = None


class Interrupted(Exception):
    """A signal ended the command; everything it had started has ended.

    Where it `ends_a_view`, such as `logs --follow`, nothing was given up that the user wanted.
    """

    def __init__(self, number: int, *, ends_a_view: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.ends_a_view = ends_a_view
        self.exit_code = 128 + number
