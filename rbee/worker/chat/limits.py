"""What a rendering may take, and how the worker and the process that renders know each other (PURE)."""

from __future__ import annotations

from typing import Final

CPU_SECONDS: Final = 5
WALL_SECONDS: Final = 10
MEMORY_BYTES: Final = 1_000_000_000
MAX_LENGTH: Final = 100_000
"""Characters that a template may write beside ten times what it is given."""
STARTED: Final = b"+"
"""Comes before an answer: without it, it is not the template that has failed."""
LENGTH_BYTES: Final = 8
"""Of the number, big end first, before a request and an answer."""
