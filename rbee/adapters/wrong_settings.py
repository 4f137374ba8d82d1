"""What a user may have meant by a setting that there is not, and what is wrong with a value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from rbee.adapters.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHOWN: Final = 60
"""Characters of a wrong value that are shown."""


def like_section(name: str, sections: Mapping[str, tuple[str, ...]]) -> str:
    """Return a hint about a section that there is not; a key that stands before any section looks like one.

    `sections` are those that there are, with their keys.
    """
    meant = [f"[{section}]" for section in nearest(name, sections)] or _sections_with(name, sections)
    return f"did you mean {' or '.join(meant)}?" if meant else f"there are: {', '.join(sections)}"


def like_key(section: str, key: str, sections: Mapping[str, tuple[str, ...]]) -> str:
    """Return a hint about a key that a section does not have."""
    known = sections[section]
    meant = nearest(key, known) or _sections_with(key, sections)
    return (f"did you mean {' or '.join(meant)}? " if meant else "") + f"[{section}] has: {', '.join(known)}"


def _sections_with(key: str, sections: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"`{key}` under [{name}]" for name, keys in sections.items() if key in keys]


def with_value(rule: str, value: object) -> str:
    """Complete what msgspec says of a value with the value itself; None where that may be a secret."""
    rule, _, inside = rule.partition(" - at ")
    if "matching regex" in rule:
        rule = "expected an absolute path"
    if value is None:
        return rule
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
    if inside:
        return f"{rule} in {shown}"
    return f"{rule} {shown}" if ", got " in rule else f"{rule}, got {shown}"
