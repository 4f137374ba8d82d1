"""How many random samples a test takes: few in every run, ten times as many with --full."""

from __future__ import annotations

from typing import Final

import hypothesis

FEW: Final = 25
MANY: Final = 10 * FEW


def samples(few: int) -> hypothesis.settings:
    """Return the settings for a test that takes so many, and not FEW, in every run."""
    is_full = hypothesis.settings.default.max_examples == MANY
    return hypothesis.settings(max_examples=few * (MANY // FEW if is_full else 1))
