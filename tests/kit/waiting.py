"""Waits until something is so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 45.0
"""Seconds after which whatever a test waits for is not coming."""


def wait_until(what: Callable[[], Any], why: str = "it came true", seconds: float = PATIENCE) -> Any:
    """Return the first true value of `what`, asked every 20 ms; fails after `seconds`, saying what it waited for."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {why}"
        time.sleep(0.02)
    return value
