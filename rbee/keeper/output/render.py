"""Turns what is shown into text: tables, sizes, narration, errors, and strings made safe for a terminal (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.keeper.output.columns import columns, cut_end, cut_start, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.common import Narration

_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_BIDIRECTIONAL: Final = dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_ONE_LINE: Final = _CONTROLS | _BIDIRECTIONAL | {0x2028: " ", 0x2029: " ", **dict.fromkeys((9, 10, 13), " ")}
_LINES: Final = {key: value for key, value in _ONE_LINE.items() if key != 10}
_TEXT: Final = {key: value for key, value in _CONTROLS.items() if key not in (9, 10)} | {13: None}

_PART: Final = re.compile(r"[0-9.]+( [kMGT]?B)? of [0-9.]+( [kMGT]?B)?")
"""How much of how much: `4 of 4`, `20.7 GB of 25.3 GB`."""
_READABLE: Final = 8
"""Columns that a cell keeps."""

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


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], room: int | None = None) -> str:
    """Return aligned columns under headings; columns of numbers are aligned to the right.

    Where the lines have more than `room` columns, the widest cells lose their beginning: names of models differ at the
    end. None is cut so far that two cells which differ look alike.
    """
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    names = [heading.upper() for heading in headings]
    widths = [max(map(columns, column)) for column in zip(names, *cells, strict=True)]
    if room is not None:
        least = [_least_width(column) for column in zip(*cells, strict=True)] or widths
        _shrink(widths, [max(columns(name), width) for name, width in zip(names, least, strict=True)], room)
        _shrink(widths, least, room)  # headings give way last
        names = [cut_end(name, width) for name, width in zip(names, widths, strict=True)]
    is_numeric = [bool(rows) and all(isinstance(row[index], int) for row in rows) for index in range(len(headings))]
    return "\n".join(
        "  ".join(
            pad(cut_start(cell, width), width, right=numeric)
            for cell, width, numeric in zip(line, widths, is_numeric, strict=True)
        ).rstrip()
        for line in (names, *cells)
    )


def _least_width(column: Sequence[str]) -> int:
    """Return the width to which a column can be cut: below it, cells that differ would look alike, or say nothing."""
    if any(map(_PART.fullmatch, column)):
        return max(map(columns, column))  # the part comes first, and without it the whole says nothing
    least = min(max(map(columns, column)), _READABLE)
    different = set(column)
    while len({cut_start(cell, least) for cell in different}) < len(different):
        least += 1
    return least


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Make the widest columns narrower until all fit, as far as that is possible."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0:
        index = max(range(len(widths)), key=lambda at: widths[at] if widths[at] > least[at] else 0)
        if widths[index] <= least[index]:
            return
        widths[index] -= 1
        excess -= 1


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
