"""How the keeper words what it shows."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.keeper.output import render
from rbee.wire.common import Narration


@given(st.text())
def test_shown_text_has_no_control_characters(text: str) -> None:
    shown = render.clean(text)
    assert not any(unicodedata.category(character) == "Cc" for character in shown)
    assert not any(unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF") for character in shown)
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert render.clean(text) == render.clean(text, lines=True) == render.clean_generated(text) == text


def test_lines_and_tabs_survive_where_they_belong() -> None:
    assert render.clean("a\nb\tc") == "a b c"
    assert render.clean("a\nb\tc", lines=True) == "a\nb c"
    assert render.clean_generated("a\r\nb\tc\x1b[2J") == "a\nb\tc\ufffd[2J"


def test_an_error_is_what_happened_then_what_to_do() -> None:
    assert render.error("it broke", "mend it") == "rbee: it broke\nhint: mend it"
    assert render.error("it broke\x1b]0;title\x07", None) == "rbee: it broke\ufffd]0;title\ufffd"


@pytest.mark.parametrize(
    ("actor", "action", "line"),
    [
        ("queen-rbee", "test_ssh", "[queen-rbee] 🔌 So it is"),
        ("queen-rbee", "choose_worker", "[queen-rbee] 👑 So it is"),
        ("llm-worker-rbee", "inference_done", "[llm-worker-rbee] ✨ So it is"),
    ],
)
def test_narration(actor: str, action: str, line: str) -> None:
    event = Narration(actor=actor, action=action, target="x", human="So it is")
    assert render.narration(event, emoji=True) == line
    assert render.narration(event, emoji=False) == f"[{actor}] So it is"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "1.5 MB"), (150_000_000, "150 MB"),
        (999_600, "1.0 MB"), (25_300_000_000, "25.3 GB"), (2_000_000_000_000, "2.0 TB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text
