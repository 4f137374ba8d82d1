"""The ids of tool calls: random ones, and those that a family's template demands (PURE)."""

from __future__ import annotations

import re
import secrets
import string
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.worker.output.syntax import IdStyle

_LETTERS: Final = string.ascii_letters + string.digits


def new_id_of(style: IdStyle) -> Callable[[int, str], str]:
    """Return what makes an id of a call's index and name."""
    match style:
        case "nine":
            return lambda _index, _name: _letters(9)
        case "kimi":
            return lambda index, name: f"functions.{name}:{index}"
        case "random":
            return lambda _index, _name: "call_" + _letters(24)


def is_id(text: str, name: str, style: IdStyle) -> bool:
    """Return whether an id that the model has written may be kept: clients send it back, for the template to write."""
    match style:
        case "nine":
            return re.fullmatch(r"[A-Za-z0-9]{9}", text) is not None
        case "kimi":
            return re.fullmatch(rf"functions\.{re.escape(name)}:[0-9]{{1,6}}", text) is not None
    return False


def _letters(number: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(number))
