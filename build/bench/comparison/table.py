"""Writes what was measured as lines of the table."""

import statistics
from collections.abc import Iterator

from comparison.measuring import WRITTEN, Found, Number
from comparison.rows import Row


def lines(row: Row, found: Found) -> Iterator[str]:
    """Yield the row's heading, and a line for each number in each way."""
    busy = f"; others took {statistics.median(found.others):.0%} of the processors" if found.others else ""
    yield f"\n{row.name}: {row.what} ({found.model}{busy})"
    for way, shares in found.values.get(WRITTEN, {}).items():
        if min(shares) < 1:
            yield f"    {way}: texts that ended by themselves; {statistics.mean(shares):.0%} of the tokens were written"
    for number in row.numbers:
        values = found.values.get(number.name, {})
        for way in sorted(values, key=lambda way: (way != row.baseline, way)):
            yield _line(number, found, way, values[way])


def _line(number: Number, found: Found, way: str, values: list[float]) -> str:
    value = statistics.median(values)
    spread = f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else ""
    line = f"    {number.name:<18} {way:<13} {value:>9.3f} {number.unit:<9} {spread:<18}"
    is_ours = way != found.baseline
    if (gain := found.gain(number, way)) is not None:
        line += f" gain {gain:>7.2f}"
        if (bound := number.bounds.get(way)) is not None:
            line += f" >= {bound:.3g} {'met' if gain >= bound else 'MISSED'}"
    if number.most is not None and is_ours:
        line += f" <= {number.most:.3g} {number.unit} {'met' if value <= number.most else 'MISSED'}"
    return line.rstrip()
