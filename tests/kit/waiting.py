"""Waits until something is so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 45.0
"""Seconds after which whatever a test waits for is not coming."""


def wait_until(what: Callable[[], Any], why: str = "it came true", seconds: float = PATIENCE) -> Any:
    """Return the first true value of `what`; fails after `seconds`, saying what it waited for.

    It is asked every 20 ms, and where a look takes long, less often: looking would take the processor from what is
    waited for.
    """
    deadline = time.monotonic() + seconds
    looks_at = time.monotonic()
    while not (value := what()):
        now = time.monotonic()
        assert now < deadline, f"not within {seconds:g} s: {why}"
        time.sleep(min(max(0.02, 3 * (now - looks_at)), 0.2))
        looks_at = time.monotonic()
    return value
