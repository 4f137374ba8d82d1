"""A name that does not exist is answered with the one that was meant, where that can be told."""

from __future__ import annotations

import pytest

from rbee.adapters.nearest import did_you_mean, nearest

NODES = ("attic", "cellar", "gpu-1", "gpu-2", "gpu-3", "gpu-4", "Workshop")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("atic", ["attic"]),
        ("ATTIC", ["attic"]),
        ("workshop", ["Workshop"]),
        ("WORK", ["Workshop"]),
        ("att", ["attic"]),
        ("celler", ["cellar"]),
        ("gpu", ["gpu-1", "gpu-2", "gpu-3", "gpu-4"]),
        ("gpu-9", ["gpu-4"]),
        ("moon", []),
        ("", []),
    ],
)
def test_the_nearest_names_are_those_that_may_be_meant(word: str, found: list[str]) -> None:
    assert nearest(word, NODES) == found


def test_a_hint_asks_about_a_few_names_and_not_about_many() -> None:
    assert did_you_mean("atic", NODES) == "did you mean attic?"
    assert did_you_mean("gpu", NODES[:4]) == "did you mean gpu-1 or gpu-2?"
    assert did_you_mean("gpu", NODES) is None
    assert did_you_mean("moon", NODES) is None
