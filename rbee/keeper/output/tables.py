"""Lays out rows and fields in columns, as narrow as the terminal is (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.keeper.output.columns import columns, cut_end, cut_start, pad, wrap
from rbee.keeper.output.render import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WHOLE: Final = re.compile(r"[0-9.]+( [kMGT]?B)? of [0-9.]+( [kMGT]?B)?|\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")
"""What says something else, or nothing, without its beginning: `20.7 GB of 25.3 GB`, `2026-11-30 15:00:00`."""
_READABLE: Final = 8
"""Columns that a cell keeps."""
_RECOGNISABLE: Final = 4
"""Columns that a heading keeps."""


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], room: int | None = None) -> str:
    """Return aligned columns under headings; columns of numbers are aligned to the right.

    Where the lines have more than `room` columns, the widest cells lose their beginning: names of models differ at the
    end. None is cut so far that two cells which differ look alike: rather each row becomes a paragraph of its own.
    """
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    names = [heading.upper() for heading in headings]
    widths = [max(map(columns, column)) for column in zip(names, *cells, strict=True)]
    if room is not None:
        least = [_least_width(column) for column in zip(*cells, strict=True)] or widths
        _shrink(widths, [max(columns(name), width) for name, width in zip(names, least, strict=True)], room)
        least = [max(width, min(columns(name), _RECOGNISABLE)) for name, width in zip(names, least, strict=True)]
        _shrink(widths, least, room)  # headings give way last
        if _excess(widths, room) > 0:
            return "\n\n".join(fields(zip(names, line, strict=True), room) for line in cells or [[""] * len(names)])
        names = [cut_end(name, width) for name, width in zip(names, widths, strict=True)]
    is_numeric = [bool(rows) and all(isinstance(row[index], int) for row in rows) for index in range(len(headings))]
    return "\n".join(
        "  ".join(
            pad(cut_start(cell, width), width, right=numeric)
            for cell, width, numeric in zip(line, widths, is_numeric, strict=True)
        ).rstrip()
        for line in (names, *cells)
    )


def fields(pairs: Iterable[tuple[str, object]], room: int | None = None, *, indent: str = "") -> str:
    """Return a line for each name and its value; a value with more columns than `room` leaves goes on below itself."""
    cells = [(name, clean(str(value))) for name, value in pairs]
    width = max((columns(name) for name, _ in cells), default=0)
    before = len(indent) + width + 2
    lines: list[str] = []
    for name, value in cells:
        parts = [value] if room is None else wrap(value, max(_READABLE, room - before))
        lines.append(f"{indent}{pad(name, width)}  {parts[0]}".rstrip())
        lines += [" " * before + part for part in parts[1:]]
    return "\n".join(lines)


def _least_width(column: Sequence[str]) -> int:
    """Return the width to which a column can be cut: below it, cells that differ would look alike, or say nothing."""
    least = max((columns(cell) for cell in column if _WHOLE.fullmatch(cell)), default=0)
    least = max(least, min(max(map(columns, column)), _READABLE))
    different = set(column)
    while len({cut_start(cell, least) for cell in different}) < len(different):
        least += 1
    return least


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Make the widest columns narrower until all fit, as far as that is possible."""
    excess = _excess(widths, room)
    while excess > 0:
        index = max(range(len(widths)), key=lambda at: widths[at] if widths[at] > least[at] else 0)
        if widths[index] <= least[index]:
            return
        widths[index] -= 1
        excess -= 1


def _excess(widths: Sequence[int], room: int) -> int:
    """Return by how many columns lines of these cells, two blanks apart, are too long."""
    return sum(widths) + 2 * (len(widths) - 1) - room
