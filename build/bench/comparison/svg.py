"""Draws line charts as SVG, legible on light and on dark pages."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 64, 52
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
path.line { fill: none; stroke-width: 2.5 }
.c0 { stroke: #b35900; fill: #b35900 } .c1 { stroke: #0969da; fill: #0969da } .c2 { stroke: #57606a; fill: #57606a }
text.c0, text.c1, text.c2 { stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #3d444d }
  .c0 { stroke: #f0a04b; fill: #f0a04b } .c1 { stroke: #6cb6ff; fill: #6cb6ff } .c2 { stroke: #9198a1; fill: #9198a1 }
}
"""
DASHES = ("", "7 4", "2 3")
"""Lines differ in more than their colour."""
Points = Sequence[tuple[float, float]]


class Chart(NamedTuple):
    """Lines by name over the same axis; with `is_log_x` each doubling has the same width."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Points]
    is_log_x: bool = False


def draw(chart: Chart) -> str:
    """Return the chart as a whole SVG file. Raises ValueError without a point."""
    points = [point for line in chart.lines.values() for point in line]
    if not points:
        raise ValueError(f"nothing to draw: {chart.title}")
    xs = sorted({x for x, _ in points})
    step = _step(max(y for _, y in points) / 5)
    rows = max(1, math.ceil(max(y for _, y in points) / step))
    low, high = _scaled(chart, xs[0]), _scaled(chart, xs[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (_scaled(chart, x) - low) / (high - low) if high > low else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / (rows * step) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="24">{escape(chart.title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">'
        f"{escape(chart.x_label)}</text>",
        f'<text x="{-(TOP + HEIGHT - BOTTOM) / 2:.0f}" y="16" text-anchor="middle" transform="rotate(-90)">'
        f"{escape(chart.y_label)}</text>",
    ]
    for row in range(rows + 1):
        y = at(xs[0], row * step)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{row * step:.4g}</text>')
    y = HEIGHT - BOTTOM + 20
    parts += [f'<text x="{at(x, 0)[0]:.1f}" y="{y}" text-anchor="middle">{x:g}</text>' for x in _some(xs)]
    for number, (name, line) in enumerate(chart.lines.items()):
        places = [at(x, y) for x, y in sorted(line)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        kind = f"c{number % 3}"
        parts.append(f'<path class="line {kind}" stroke-dasharray="{DASHES[number % 3]}" d="M{path}"/>')
        parts += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
        x = LEFT + number * 150
        parts.append(f'<path class="line {kind}" stroke-dasharray="{DASHES[number % 3]}" d="M{x} 44h28"/>')
        parts.append(f'<text class="{kind}" x="{x + 34}" y="48">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _scaled(chart: Chart, x: float) -> float:
    return math.log2(x) if chart.is_log_x else x


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, … times a power of ten that is not below `least`."""
    power = 10 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _some(xs: list[float]) -> list[float]:
    """Return at most ten of them, evenly."""
    return xs[:: math.ceil(len(xs) / 10)]
