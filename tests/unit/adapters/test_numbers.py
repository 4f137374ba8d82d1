"""Numbers as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.adapters import numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90), ("90s", 90), ("1.5h", 5400), ("5min", 300), ("5 minutes", 300), ("2hours", 7200), ("2 HOURS", 7200),
        ("1 day", 86_400), ("1h30m", 5400), ("1m30s", 90), ("10sec", 10), ("0", 0), ("3hrs", 10_800),
        ("", None), ("-1", None), ("ten", None), ("5 weeks", None), ("5s5s5s5s", None), ("1e3", None), ("s", None),
    ],
)  # fmt: skip
def test_times(text: str, value: float | None) -> None:
    assert numbers.seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5k", 5000), ("1.5K", 1500), ("2m", 2_000_000), ("1,000", 1000), ("1_000", 1000), ("1 000 000", 1_000_000),
        ("1'000", 1000), ("1e3", 1000), ("5.0", 5), ("0x10", 16), (" 7 ", 7),
        ("5.5", None), ("ten", None), ("", None), ("k", None), ("1,00", None), ("-5", None), ("5kk", None),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, value: int | None) -> None:
    assert numbers.whole(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0,7", 0.7), ("70%", 0.7), ("7,5 %", 0.075), ("0.7", None), ("1,2,3", None), ("%", None), ("warm", None)],
)
def test_fractions(text: str, value: float | None) -> None:
    assert numbers.fraction(text) == (None if value is None else pytest.approx(value))


@given(st.text(max_size=12))
def test_nothing_that_is_typed_is_an_error(text: str) -> None:
    for read in (numbers.seconds, numbers.whole, numbers.fraction):
        value = read(text)
        assert value is None or value >= 0
