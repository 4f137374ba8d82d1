"""What a thread opens that nobody waits for any more does not stay open."""

from __future__ import annotations

import pytest

from rbee.concurrency.opened import AbandonedError, Opened


class Resource:
    def __init__(self, name: str, closed: list[str]) -> None:
        self._name = name
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self._name)


def test_all_that_was_opened_is_closed_the_last_first() -> None:
    closed: list[str] = []
    opened = Opened()
    for name in ("socket", "transport"):
        opened.add(Resource(name, closed))
    assert closed == []
    opened.close()
    assert closed == ["transport", "socket"]


def test_what_an_abandoned_thread_opens_is_closed_at_once() -> None:
    closed: list[str] = []
    opened = Opened()
    opened.close()
    with pytest.raises(AbandonedError):
        opened.add(Resource("socket", closed))
    assert closed == ["socket"]
