"""Text held back until it may be shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.detokenizer import Detokenizer


def assemble(pieces: list[bytes], stops: list[str] | None = None) -> tuple[list[str], Detokenizer]:
    text = Detokenizer(stops or [])
    shown = [text.feed(piece) for piece in pieces]
    return [*shown, text.finish()], text


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def reference(text: str, stops: list[str]) -> str:
    """What a reader of single characters would show."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


def test_plain_text_is_shown_at_once() -> None:
    assert assemble([b"Once", b" upon"])[0] == ["Once", " upon", ""]


def test_a_character_is_never_split() -> None:
    assert assemble([b"\xf0", b"\x9f\x90", b"\x9d!"])[0] == ["", "", "🐝!", ""]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert assemble([b"a\xff", b"\xc3", b"b"])[0] == ["a�", "", "�b", ""]


def test_an_unfinished_character_at_the_end_is_replaced() -> None:
    assert assemble([b"a", b"\xf0\x9f"])[0] == ["a", "", "�"]


def test_a_stop_string_never_leaks_a_part_of_itself() -> None:
    shown, text = assemble([b"bees ", b"#", b"#", b"# more"], ["###"])
    assert shown == ["bees ", "", "", "", ""]
    assert text.is_stopped


def test_text_that_only_looked_like_a_stop_string_is_shown() -> None:
    shown, text = assemble([b"a#", b"#b", b"#"], ["###"])
    assert shown == ["a", "##b", "", "#"]
    assert not text.is_stopped


def test_text_before_a_stop_string_within_one_piece_is_shown() -> None:
    shown, text = assemble([b"one STOP two", b" three"], ["STOP"])
    assert shown == ["one ", "", ""]
    assert text.is_stopped


def test_the_stop_string_that_is_complete_first_wins() -> None:
    assert "".join(assemble([b"abcd"], ["bcd", "c"])[0]) == "ab"
    assert "".join(assemble([b"a", b"b", b"c", b"d"], ["bcd", "c"])[0]) == "ab"


def test_of_stop_strings_that_end_together_the_longest_wins() -> None:
    assert "".join(assemble([b"xabc"], ["c", "abc", "bc"])[0]) == "x"


def test_a_stop_string_of_several_bytes_a_character() -> None:
    bee = "🐝".encode()
    assert "".join(assemble([b"a ", bee[:1], bee[1:], bee, b"z"], ["🐝🐝"])[0]) == "a "


def test_a_stop_string_may_be_the_whole_text() -> None:
    assert "".join(assemble([b"\n"], ["\n"])[0]) == ""


@pytest.mark.parametrize("stops", [[], [""]])
def test_nothing_is_held_without_stop_strings(stops: list[str]) -> None:
    assert Detokenizer(stops).feed(b"abc") == "abc"


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_any_bytes_cut_anywhere_decode_as_the_whole_would(data: bytes, places: list[int]) -> None:
    shown, _ = assemble(cut(data, places))
    assert "".join(shown) == data.decode("utf-8", "replace")


@given(
    st.text(alphabet="abé🐝", max_size=30),
    st.lists(st.text(alphabet="abé🐝", min_size=1, max_size=5), max_size=4),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_stop_strings_do_not_depend_on_the_cuts(text: str, stops: list[str], places: list[int]) -> None:
    shown, assembler = assemble(cut(text.encode(), places), stops)
    expected = reference(text, stops)
    assert "".join(shown) == expected
    assert assembler.is_stopped == any(stop in text for stop in stops)
