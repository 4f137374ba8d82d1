"""What a terminal shows of Markdown, while it is written and at the end."""

from __future__ import annotations

import pyte
import pytest

from rbee.keeper.chat import markdown
from rbee.keeper.chat.live_markdown import LiveMarkdown

STORY = """\
# Bees

Some *text* with **bold** and `code`, `a <b> c`, <T> as it is, and a [link](http://bees.example/dance).
A second line,
and a third.

- one, which is long enough to be broken in a narrow terminal
- two
  1. inner
- three

| bee | 蜜蜂 |
|---|---|
| queen | 女王 |

> A quote.

```python
def dance(x: int) -> int:
    return x * 2
```

---

[1]: http://bees.example/footnote

The end ~~not~~.
"""


class Terminal:
    """A terminal of so many columns and rows, with all that has scrolled out of it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1)
        self._screen.set_mode(pyte.modes.LNM)  # a newline begins a line, as a terminal's driver has it
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> None:
        self._stream.feed(text)

    def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)
        self._screen.resize(rows, columns)

    @property
    def text(self) -> str:
        scrolled = ["".join(line[at].data for at in range(self.size[0])) for line in self._screen.history.top]
        # pyte keeps an empty cell behind a wide sign.
        return "\n".join(line.rstrip() for line in [*scrolled, *self._screen.display]).rstrip()


def written(text: str, columns: int, rows: int, step: int) -> str:
    """Return what is on a terminal after `text` was written there, so many letters at a time."""
    terminal = Terminal(columns, rows)
    live = LiveMarkdown(lambda: terminal.size)
    for start in range(0, len(text), step):
        live.feed(text[start : start + step])
        terminal.write(live.frame())
    terminal.write(live.finish())
    return terminal.text


def at_once(text: str, columns: int) -> str:
    terminal = Terminal(columns, 500)
    live = LiveMarkdown(lambda: terminal.size)
    live.feed(text)
    terminal.write(live.finish())
    return terminal.text


@pytest.mark.parametrize("columns", [24, 40, 80, 100])
@pytest.mark.parametrize("rows", [5, 24])
def test_what_is_drawn_piece_by_piece_is_what_is_drawn_at_once(columns: int, rows: int) -> None:
    assert written(STORY, columns, rows, 3) == at_once(STORY, columns)


def test_nothing_of_a_text_is_lost() -> None:
    shown = at_once(STORY, 100)
    for part in ("a <b> c", "<T> as it is", "link (http://bees.example/dance)", "[1]: http://bees.example/footnote"):
        assert part in shown
    assert "Some text with bold and code" in shown
    assert "\nA second line,\nand a third.\n" in shown, "the lines of a poem stay"
    assert "\ndef dance(x: int) -> int:\n    return x * 2\n" in shown, "code can be copied"
    assert shown.startswith("Bees\n\nSome")


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J\x1b[H",
        "\x1b]0;title\x07",
        "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
        "\x9b31m",
        "a\rb",
        "\x07\x08\x7f",
        "`\x1b[31m`",
        "```\n\x1b[31m\n```",
        "[x\x1b[1m](http://a\x1b[2m)",
        "&#27;[31m and &#x9b;31m",
    ],
)
def test_a_text_cannot_control_the_terminal(evil: str) -> None:
    live = LiveMarkdown(lambda: (80, 24))
    live.feed(f"before {evil} after")
    drawn = live.frame() + live.finish()
    ours = ("\x1b[0m", "\x1b[36m", "\x1b[1m", "\x1b[2m", "\x1b[4m", "\r\x1b[J", "\n")
    for sequence in ours:
        drawn = drawn.replace(sequence, "")
    assert [letter for letter in drawn if not letter.isprintable()] == []


def test_wide_signs_and_those_of_which_terminals_disagree_leave_no_line_behind() -> None:
    text = "蜜蜂が花から花へと飛んでいきます。" * 3 + " 👍🏽👍🏽 fin.\n\nEnd."
    shown = written(text, 40, 10, 1)
    assert shown.count("End.") == 1
    assert shown.count("fin.") == 1
    assert shown.count("蜜蜂が花から") == at_once(text, 40).count("蜜蜂が花から")


def test_a_block_that_is_longer_than_the_screen_is_drawn_once() -> None:
    text = "```\n" + "".join(f"line {number}\n" for number in range(100)) + "```\n"
    assert written(text, 40, 10, 7) == "\n".join(f"line {number}" for number in range(100))


def test_a_terminal_that_becomes_wider_or_narrower_goes_on() -> None:
    terminal = Terminal(80, 24)
    live = LiveMarkdown(lambda: terminal.size)
    for index, piece in enumerate(STORY.splitlines(keepends=True)):
        live.feed(piece)
        terminal.write(live.frame())
        terminal.resize(*((60, 20), (100, 30))[index % 2])
    terminal.write(live.finish())
    assert terminal.text.endswith("The end not.")


def test_blocks_are_parted_where_they_can_be_drawn_alone() -> None:
    text = "one\ntwo\n\n- a\n- b\n\n  c\n\nthree\n"
    assert markdown.blocks(text) == ["one\ntwo\n\n", "- a\n- b\n\n  c\n\n", "three\n"]
    assert "".join(markdown.blocks(STORY)) == STORY
    assert markdown.blocks("") == [""]
