"""Wakes everyone who follows something that changes."""

from __future__ import annotations

import trio


class Changed:
    """A condition that is met again and again.

    Take `next` before you look, and wait for it afterwards: a change in between is not missed, and changes that come
    while nobody looks are seen as one.
    """

    def __init__(self) -> None:
        self._next = trio.Event()

    @property
    def next(self) -> trio.Event:
        """The event that the next change sets."""
        return self._next

    def notify(self) -> None:
        """Wake everyone who waits now."""
        changed, self._next = self._next, trio.Event()
        changed.set()
