"""How the keeper words what it shows."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.keeper.output import render
from rbee.keeper.output.columns import columns
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


def test_a_table_is_aligned_with_numbers_to_the_right() -> None:
    assert render.table(("name", "count"), [("a", 5), ("long name", 12)]).splitlines() == [
        "NAME       COUNT",
        "a              5",
        "long name     12",
    ]
    assert render.table(("name",), []) == "NAME"


MODELS = ("hf:TheBloke/TinyLlama-1.1B-GGUF:Q4_K_M", "hf:TheBloke/TinyLlama-1.1B-GGUF:Q5_K_M")


def test_a_narrow_table_loses_the_beginning_of_names() -> None:
    rows = [("01234567", "local", "idle", "4 of 4", "cpu:0", model) for model in MODELS]
    names = ("worker", "node", "state", "free slots", "device", "model")
    head, *lines = render.table(names, rows, 60).splitlines()
    assert head == "WORKER    NODE   STATE  FREE SLOTS  DEVICE  MODEL"
    assert lines == [
        "01234567  local  idle   4 of 4      cpu:0   ….1B-GGUF:Q4_K_M",
        "01234567  local  idle   4 of 4      cpu:0   ….1B-GGUF:Q5_K_M",
    ]
    assert render.table(names, rows, 400) == render.table(names, rows)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60), st.integers()), max_size=5), st.integers(0, 90))
def test_no_width_makes_rows_alike_or_lines_longer(rows: list[tuple[str, str, int]], room: int) -> None:
    names = ("name", "model", "count")
    whole, narrow = (render.table(names, rows, given).splitlines() for given in (None, room))
    assert len(narrow) == len(whole) == len(rows) + 1
    assert len(set(narrow)) == len(set(whole))
    assert max(map(columns, narrow)) <= max(map(columns, whole))


def test_headings_give_way_last() -> None:
    rows = [("01234567", "local", "idle", "4 of 4", "cpu:0", "14:03:11", model) for model in MODELS]
    names = ("worker", "node", "state", "free slots", "device", "loaded until", "model")
    head, first, second = render.table(names, rows, 60).splitlines()
    assert head == "WORKER    NODE   STATE  FREE SL…  DEVICE  LOADED …  MODEL"
    assert first == "01234567  local  idle   4 of 4    cpu:0   14:03:11  …:Q4_K_M"
    assert second.endswith("  …:Q5_K_M")


@pytest.mark.parametrize("room", [10, 50, 52, 53, 80])
def test_how_much_of_how_much_is_never_cut(room: int) -> None:
    rows = [("attic", "0.1.0", 1, "4 of 4", "20.7 GB of 25.3 GB"), ("cellar", "not started", "–", "–", "–")]
    table = render.table(("node", "hive", "workers", "free slots", "free memory"), rows, room)
    assert "  20.7 GB of 25.3 GB" in table.splitlines()[1]


def test_different_beginnings_are_not_cut_away() -> None:
    rows = [("hf:first/model-Q4_K_M",), ("hf:other/model-Q4_K_M",)]
    assert render.table(("model",), rows, 10).splitlines()[1:] == ["…t/model-Q4_K_M", "…r/model-Q4_K_M"]


def test_columns_of_wide_letters_are_aligned() -> None:
    assert render.table(("name", "count"), [("蜂", 5), ("ab", 12)]).splitlines() == [
        "NAME  COUNT",
        "蜂        5",
        "ab       12",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "1.5 MB"), (150_000_000, "150 MB"),
        (999_600, "1.0 MB"), (25_300_000_000, "25.3 GB"), (2_000_000_000_000, "2.0 TB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text
