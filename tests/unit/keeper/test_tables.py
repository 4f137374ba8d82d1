"""What is laid out in columns fits into the terminal, and says what it says in a wide one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.keeper.output import tables
from rbee.keeper.output.columns import columns, cut_end, cut_start, wrap
from rbee.keeper.output.render import clean

NARROWEST = 15
"""Columns that the longest heading of these tables, two blanks and a readable part of a cell need."""


def test_a_table_is_aligned_with_numbers_to_the_right() -> None:
    assert tables.table(("name", "count"), [("a", 5), ("long name", 12)]).splitlines() == [
        "NAME       COUNT",
        "a              5",
        "long name     12",
    ]
    assert tables.table(("name",), []) == "NAME"


MODELS = ("hf:TheBloke/TinyLlama-1.1B-GGUF:Q4_K_M", "hf:TheBloke/TinyLlama-1.1B-GGUF:Q5_K_M")


def test_a_narrow_table_loses_the_beginning_of_names() -> None:
    rows = [("01234567", "local", "idle", "4 of 4", "cpu:0", model) for model in MODELS]
    names = ("worker", "node", "state", "free slots", "device", "model")
    head, *lines = tables.table(names, rows, 60).splitlines()
    assert head == "WORKER    NODE   STATE  FREE SLOTS  DEVICE  MODEL"
    assert lines == [
        "01234567  local  idle   4 of 4      cpu:0   ….1B-GGUF:Q4_K_M",
        "01234567  local  idle   4 of 4      cpu:0   ….1B-GGUF:Q5_K_M",
    ]
    assert tables.table(names, rows, 400) == tables.table(names, rows)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60), st.integers()), max_size=5), st.integers(0, 90))
def test_no_width_makes_rows_alike_or_lines_longer(rows: list[tuple[str, str, int]], room: int) -> None:
    names = ("name", "model", "count")
    whole, narrow = (tables.table(names, rows, given).splitlines() for given in (None, room))
    assert len(whole) == len(rows) + 1
    assert max(map(columns, narrow)) <= max(room, NARROWEST)
    if len(narrow) == len(whole):
        assert len(set(narrow)) == len(set(whole))
        assert max(map(columns, narrow)) <= max(map(columns, whole))
    else:
        paragraphs = "\n".join(narrow).split("\n\n")
        assert len(paragraphs) == max(1, len(rows))
        # At the end of a line one blank looks like two.
        different = {tuple("".join(clean(str(cell)).split()) for cell in row) for row in rows}
        assert len(set(paragraphs)) >= len(different)


def test_headings_give_way_last() -> None:
    rows = [("01234567", "local", "idle", "4 of 4", "cpu:0", "14:03:11", model) for model in MODELS]
    names = ("worker", "node", "state", "free slots", "device", "loaded until", "model")
    head, first, second = tables.table(names, rows, 60).splitlines()
    assert head == "WORKER    NODE   STATE  FREE SL…  DEVICE  LOADED …  MODEL"
    assert first == "01234567  local  idle   4 of 4    cpu:0   14:03:11  …:Q4_K_M"
    assert second.endswith("  …:Q5_K_M")


@pytest.mark.parametrize("room", [10, 33, 42, 50, 52, 53, 80])
def test_how_much_of_how_much_is_never_cut(room: int) -> None:
    rows = [("attic", "0.1.0", 1, "4 of 4", "20.7 GB of 25.3 GB"), ("cellar", "not started", "–", "–", "–")]
    table = tables.table(("node", "hive", "workers", "free slots", "free memory"), rows, room)
    if room >= 50:
        assert "  20.7 GB of 25.3 GB" in table.splitlines()[1]
    else:
        assert " 20.7 GB of 25.3 GB" in " ".join(table.partition("\n\n")[0].split())


def test_the_day_of_a_moment_is_never_cut() -> None:
    rows = [(f"model-{number}", f"2026-11-{number} 15:00:00") for number in (10, 11)]
    assert tables.table(("id", "last used"), rows, 29).splitlines()[1] == "model-10  2026-11-10 15:00:00"
    assert tables.table(("id", "last used"), rows, 28).splitlines()[:2] == [
        "ID         model-10",
        "LAST USED  2026-11-10",
    ]


def test_different_beginnings_are_not_cut_away() -> None:
    rows = [("hf:first/model-Q4_K_M",), ("hf:other/model-Q4_K_M",)]
    assert tables.table(("model",), rows, 15).splitlines()[1:] == ["…t/model-Q4_K_M", "…r/model-Q4_K_M"]


WORKERS = [
    ("0d6b5c0e", "workstation", "idle", f"{model}", "cpu:0", "4 of 4", "15:20:11", "http://192.168.100.100:8001")
    for model in MODELS
]


@pytest.mark.parametrize("room", [24, 40, 50, 60, 80, 100])
def test_each_row_of_workers_can_be_read_in_any_terminal(room: int) -> None:
    names = ("worker", "node", "state", "model", "device", "free slots", "loaded until", "url")
    lines = tables.table(names, WORKERS, room).splitlines()
    assert max(map(columns, lines)) <= room
    if room >= 80:
        assert len(lines) == 3
        assert lines[1] != lines[2]
    else:
        first, second = ("".join(lines[at : at + lines.index("")]).replace(" ", "") for at in (0, lines.index("") + 1))
        for row, shown in zip(WORKERS, (first, second), strict=True):
            assert all(cell.replace(" ", "") in shown for cell in row), "nothing is cut away"


@pytest.mark.parametrize("room", [40, 60, 80])
@pytest.mark.parametrize(
    "names",
    [
        ("file:/模型/大きな模型一.gguf", "file:/模型/大きな模型二.gguf"),
        ("file:/x/蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂一.gguf", "file:/x/蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂蜂二.gguf"),
        ("file:/x/🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝.gguf", "file:/x/🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝🐝.gguf"),
        ("file:/x/e\u0301te\u0301.gguf", "file:/x/ete\u0301.gguf"),
        ("file:/x/👩\u200d🚀.gguf", "file:/x/👩🚀.gguf"),
        ("hf:a/" + "m" * 90 + ":Q4_K_M", "hf:b/" + "m" * 90 + ":Q4_K_M"),
    ],
)
def test_no_two_models_look_alike(names: tuple[str, str], room: int) -> None:
    rows = [("m", "every node", name, "1.5 MB", "2026-11-30 15:00:00") for name in names]
    shown = tables.table(("id", "node", "model", "size", "last used"), rows, room)
    assert max(map(columns, shown.splitlines())) <= room
    first, second = shown.split("\n\n") if "\n\n" in shown else shown.splitlines()[1:]
    assert first != second


def test_fields_stand_below_each_other_and_so_do_their_lines() -> None:
    pairs = [("path", "/srv/models"), ("status", "unreachable (no route to host)"), ("size", 5)]
    assert tables.fields(pairs, indent="  ").splitlines() == [
        "  path    /srv/models",
        "  status  unreachable (no route to host)",
        "  size    5",
    ]
    assert tables.fields(pairs, 24, indent="  ").splitlines() == [
        "  path    /srv/models",
        "  status  unreachable",
        "          (no route to",
        "          host)",
        "  size    5",
    ]


@given(st.text(st.characters(exclude_categories=["Cc"])), st.integers(2, 20))
def test_lines_hold_the_whole_text_and_fit(text: str, room: int) -> None:
    lines = wrap(text, room)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(columns, lines)) <= room


def test_accents_and_joiners_take_no_column() -> None:
    assert [columns(text) for text in ("e\u0301", "👩\u200d🚀", "⚠\ufe0f", "蜂", "a\u200bb")] == [1, 4, 2, 2, 2]
    assert cut_start("abce\u0301te\u0301", 3) == "…te\u0301"
    assert cut_start("abcdee\u0301", 2) == "…e\u0301"
    assert cut_end("e\u0301te\u0301abc", 3) == "e\u0301t…"


def test_no_heading_is_cut_beyond_recognition() -> None:
    rows = [("local", "0.1.0", 0, "–", "21.6 GB of 25.3 GB")]
    names = ("node", "hive", "workers", "free slots", "free memory")
    assert tables.table(names, rows, 44).splitlines()[0] == "NODE   HIVE   WOR…  FRE…  FREE MEMORY"
    assert tables.table(names, rows, 43).splitlines() == [
        "NODE         local",
        "HIVE         0.1.0",
        "WORKERS      0",
        "FREE SLOTS   –",
        "FREE MEMORY  21.6 GB of 25.3 GB",
    ]


def test_columns_of_wide_letters_are_aligned() -> None:
    assert tables.table(("name", "count"), [("蜂", 5), ("ab", 12)]).splitlines() == [
        "NAME  COUNT",
        "蜂        5",
        "ab       12",
    ]
