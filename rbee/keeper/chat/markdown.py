"""Draws Markdown in a terminal's lines, by rich.

Two things differ from what rich does by itself. Nothing is lost: HTML, definitions of links and single line breaks are
text, since models write `<T>`, footnotes and poems. And nothing is hidden: an address stands beside its link's text,
and is no link of the terminal's (OSC 8), which would not show where it leads.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from markdown_it import MarkdownIt
from rich.color import ColorSystem
from rich.console import Console
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from rbee.keeper.output import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token
    from rich.console import ConsoleOptions, JustifyMethod, RenderResult
    from rich.markdown import MarkdownElement

_THEME: Final = Theme(
    {
        # Colours of the terminal's own palette, and no backgrounds: it may be a light or a dark one.
        "markdown.code": Style(color="cyan"),
        "markdown.code_block": Style(color="cyan"),
        "markdown.h1": Style(bold=True, underline=True),
        "markdown.h2": Style(bold=True),
        "markdown.h3": Style(bold=True),
        "markdown.h4": Style(bold=True, dim=True),
        "markdown.h5": Style(dim=True),
        "markdown.h6": Style(dim=True),
        "markdown.hr": Style(dim=True),
        "markdown.block_quote": Style(dim=True),
        "markdown.list": Style(),
        "markdown.item.bullet": Style(bold=True),
        "markdown.item.number": Style(bold=True),
        "markdown.link": Style(underline=True),
        "markdown.link_url": Style(dim=True),
        "markdown.table.border": Style(dim=True),
        "markdown.table.header": Style(bold=True),
    }
)
_PARSER: Final = MarkdownIt("commonmark", {"html": False})
_PARSER.enable(["strikethrough", "table"]).disable(["reference", "lheading"])
"""Without headings that a line below them makes: while a text is written, a paragraph before a rule would be one."""


class DrawnLine(NamedTuple):
    """A line of the terminal, with its control sequences, and the columns that it takes."""

    text: str
    columns: int


class _PlainCode(CodeBlock):
    """A block of code, as it is: it can be copied from the screen."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(str(self.text).rstrip("\n"), style="markdown.code_block", no_wrap=False, overflow="fold")


class _LeftHeading(Heading):
    """A heading at the left, as all text is."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _PlainCode,
        "code_block": _PlainCode,
        "heading_open": _LeftHeading,
    }

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = tokens


def blocks(text: str) -> list[str]:
    """Return the blocks of a text, each of which can be drawn alone; the last one may go on."""
    starts = [token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.splitlines(keepends=True)
    starts = list(dict.fromkeys([0, *starts[1:]]))
    return ["".join(lines[start:end]) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def draw(block: str, columns: int) -> list[DrawnLine]:
    """Return the lines of a block, none longer than so many columns, and none empty at its ends."""
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        width=max(columns, 8),
        theme=_THEME,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    tokens = _PARSER.parse(block)
    _break_lines(tokens)
    drawn = [_line(segments) for segments in console.render_lines(_Markdown(tokens), pad=False)]
    while drawn and not drawn[-1].columns:
        drawn.pop()
    while drawn and not drawn[0].columns:
        drawn.pop(0)
    return drawn


def _break_lines(tokens: list[Token]) -> None:
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def _line(segments: Sequence[Segment]) -> DrawnLine:
    """Return a line without the blanks that fill it up: a terminal that becomes narrower would break it for them."""
    kept = list(_trimmed(segments))
    text = "".join(
        segment.style.render(segment.text, color_system=ColorSystem.STANDARD) if segment.style else segment.text
        for segment in kept
    )
    return DrawnLine(text, Segment.get_line_length(kept))


def _trimmed(segments: Sequence[Segment]) -> Iterator[Segment]:
    last = max((at for at, segment in enumerate(segments) if segment.text.strip()), default=-1)
    for at, segment in enumerate(segments[: last + 1]):
        text = segment.text.rstrip() if at == last else segment.text
        yield Segment(render.clean_generated(text), segment.style)
