"""How templates are told how much their model may think (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rbee.wire.chat.template import TemplateHabits

OFF: Final[dict[str, Any]] = {
    "enable_thinking": False, "thinking": False, "thinking_mode": "disabled", "thinking_budget": 0, "reasoning": False,
}  # fmt: skip
"""Qwen 3 and most others; DeepSeek, Granite and Kimi; MiniMax; Seed-OSS; Command A."""
ON: Final[dict[str, Any]] = {
    "enable_thinking": True, "thinking": True, "thinking_mode": "enabled", "thinking_budget": -1, "reasoning": True,
}  # fmt: skip
VARIABLES: Final = ("reasoning_effort", "thinking_effort", "reasoning_strength")
"""gpt-oss and most others; Kimi K3; Muse."""
_SCALE: Final = {"none": 0, "no_think": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}
VALUES: Final = tuple(_SCALE)


def variables(effort: str | None, habits: TemplateHabits) -> dict[str, Any]:
    """Return the variables that say so; none where it is left to the model."""
    if effort is None:
        return {}
    chosen = {name: _nearest(effort, taken) for name, taken in habits.efforts.items() if taken}
    return (OFF if effort == "none" else ON) | chosen


def _nearest(effort: str, taken: list[str]) -> str:
    """Return the value that is nearest to an effort, the lower of two: DeepSeek knows none between `high` and `max`."""
    wanted = _SCALE[effort]
    return min(taken, key=lambda value: (abs(_SCALE[value] - wanted), _SCALE[value]))


def turns_off(value: str) -> bool:
    return _SCALE[value] == 0


def is_least(value: str) -> bool:
    return _SCALE[value] <= 1
