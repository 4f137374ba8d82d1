"""How an attempt to fetch something fails where another one may succeed."""

from __future__ import annotations


class BrokenError(Exception):
    """An attempt failed in a way that another one may mend; the message says how.

    `after` is the site's Retry-After in seconds.
    """

    def __init__(self, message: str, *, after: float = 0) -> None:
        super().__init__(message)
        self.after = after


class OfflineError(BrokenError):
    """The user does not want the site to be asked: another attempt is of no use."""
