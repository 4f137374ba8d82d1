"""Reads numbers as people write them: with units, separators, a decimal comma (PURE)."""

from __future__ import annotations

import re
from typing import Final

_TIMES: Final = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600,
                 "d": 86_400, "day": 86_400}  # fmt: skip
_TIME: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([a-z]*)")
_PARTS: Final = re.compile(r"(?:[0-9]{1,6}[hms]){2,3}")
_GROUPS: Final = re.compile(r"[0-9]{1,3}(?:[,_ .'][0-9]{3})+")
_MANY: Final = {"k": 1000, "m": 1_000_000}


def seconds(text: str) -> float | None:
    """Return the seconds of a time such as 90, 90s, 5min, 2 hours or 1h30m; None for what is no time."""
    if _PARTS.fullmatch(text):
        return float(sum(int(part[:-1]) * _TIMES[part[-1]] for part in re.findall(r"[0-9]+[hms]", text)))
    found = _TIME.fullmatch(text.strip().lower())
    if found is None:
        return None
    unit = found[2] if found[2] in _TIMES else found[2].removesuffix("s")
    length = _TIMES.get(unit or "s")
    return None if length is None else float(found[1]) * length


def whole(text: str) -> int | None:
    """Return the whole number that may be meant, where digits alone are expected: 5k, 1,000, 1_000, 1e3, 5.0, 0x10."""
    text = text.strip().lower()
    if _GROUPS.fullmatch(text):
        return int(re.sub("[^0-9]", "", text))
    if re.fullmatch(r"0x[0-9a-f]{1,8}", text):
        return int(text, 16)
    times = _MANY.get(text[-1:], 1)
    digits = text[:-1] if times > 1 else text
    value = float(digits) * times if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?(?:e[0-9])?", digits) else 0.5
    return int(value) if value.is_integer() else None


def fraction(text: str) -> float | None:
    """Return the number that may be meant: 0,7 or 70%."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,4},[0-9]{1,6}", text):
        return float(text.replace(",", "."))
    if found := re.fullmatch(r"([0-9]{1,3}(?:[.,][0-9]{1,6})?) ?%", text):
        return float(found[1].replace(",", ".")) / 100
    return None
