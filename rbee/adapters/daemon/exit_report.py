"""How a daemon ended: the report that it leaves in its lock file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rbee.concurrency.contained import expected
from rbee.errors import InternalError, UnloadFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

BUG: Final = "the daemon failed; its log says more"


class ExitReport(msgspec.Struct, omit_defaults=True, frozen=True):
    """The error that a daemon ended with, if any, and in `unfinished` what it could not end, each in a sentence.

    No field may have a name that `Instance` has: the scripts that read the file on other machines take the last
    occurrence of a name.
    """

    code: str = ""
    message: str = ""
    hint: str | None = None
    unfinished: tuple[str, ...] = ()

    @property
    def failure(self) -> UnloadFailedError | None:
        """The error to raise for the end of that daemon; None where it ended as it should."""
        return UnloadFailedError(self.message, hint=self.hint) if self.code else None


def report(failure: BaseException | None, unfinished: Sequence[str]) -> ExitReport:
    """Return the report of a daemon that ends with `failure`."""
    if failure is None:
        return ExitReport(unfinished=tuple(unfinished))
    error = expected(failure) or InternalError(BUG)
    return ExitReport(error.code, error.message, error.hint, tuple(unfinished))
