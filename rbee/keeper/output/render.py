"""Turns what is shown into text: sizes, narration, errors, and strings made safe for a terminal (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rbee.wire.common import Narration

_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_BIDIRECTIONAL: Final = dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_ONE_LINE: Final = _CONTROLS | _BIDIRECTIONAL | {0x2028: " ", 0x2029: " ", **dict.fromkeys((9, 10, 13), " ")}
_LINES: Final = {key: value for key, value in _ONE_LINE.items() if key != 10}
_TEXT: Final = {key: value for key, value in _CONTROLS.items() if key not in (9, 10)} | {13: None}

EMOJI: Final = (
    # A word stands for every action that contains it, and the first word found wins.
    ("ssh", "🔌"),
    ("connect", "🔌"),
    ("download", "📥"),
    ("shutdown", "💤"),
    ("stop", "💤"),
    ("drain", "💤"),
    ("retry", "⏳"),
    ("wait", "⏳"),
    ("ready", "✅"),
    ("complete", "✅"),
    ("load", "📦"),
    ("infer", "✨"),
    ("generat", "✨"),
    ("preflight", "🔎"),
    ("device", "🧮"),
)
_ACTORS: Final = {
    "rbee-keeper": "🐝",
    "queen-rbee": "👑",
    "rbee-hive": "🍯",
    "model-provisioner": "📥",
    "llm-worker-rbee": "👷",
    "model-loader": "📦",
    "engine": "🧮",
}


def clean(text: str, *, lines: bool = False) -> str:
    """Return `text` without control or direction characters, on one line unless `lines`.

    It may come from another machine, which must not be able to move the cursor, set the window's title, or write lines
    that look like ours.
    """
    return text.translate(_LINES if lines else _ONE_LINE)


def clean_generated(text: str) -> str:
    """Return generated text without control characters; tabs, newlines and writing directions are part of it."""
    return text.translate(_TEXT)


def narration(event: Narration, *, emoji: bool) -> str:
    """Return the line for one narration event."""
    sign = ""
    if emoji:
        action = event.action.lower()
        sign = next((sign for word, sign in EMOJI if word in action), _ACTORS.get(event.actor, "🐝")) + " "
    return f"[{clean(event.actor)}] {sign}{clean(event.human)}"


def error(message: str, hint: str | None) -> str:
    """Return the lines that report a failure: what happened, then what to do."""
    what = clean(message, lines=True).strip()
    return f"rbee: {what}" + (f"\nhint: {clean(hint, lines=True).strip()}" if hint else "")


def size(count: float) -> str:
    """Return a number of bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Return a time for people, in the largest unit that it is a whole number of."""
    for length, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds and seconds % length == 0:
            return plural(int(seconds // length), unit)
    return f"{seconds:g} s"
