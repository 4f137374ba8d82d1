"""One line that is replaced must fit into the terminal, whatever its letters."""

from __future__ import annotations

import pytest

from rbee.keeper.output import columns, narration
from rbee.wire.common import Narration


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("short", 5, "short"), ("longer", 5, "long…"), ("蜂蜂蜂", 6, "蜂蜂蜂"), ("蜂蜂蜂", 5, "蜂蜂…"),
        ("蜂蜂蜂", 4, "蜂…"), ("e\u0301e\u0301", 2, "e\u0301e\u0301"), ("", 0, ""),
    ],
)  # fmt: skip
def test_a_line_is_cut_to_the_columns_it_takes(text: str, room: int, shown: str) -> None:
    assert columns.cut_end(text, room) == shown
    assert columns.columns(shown) <= room


def test_the_end_can_be_kept_as_well() -> None:
    assert columns.cut_start("model:Q4_K_M", 7) == "…Q4_K_M"
    assert columns.cut_start("蜂蜂蜂", 5) == "…蜂蜂"
    assert columns.cut_start("short", 5) == "short"


@pytest.mark.parametrize(
    ("action", "passing", "logged"),
    [
        ("choose_worker", True, False), ("http_ready", True, False), ("ssh_tunnel", True, False),
        ("download", True, True), ("wait", True, True), ("loaded", True, True),
        ("retry", False, True), ("skip_node", False, True), ("copy_failed", False, True),
        ("of_a_newer_version", False, True),
    ],
)  # fmt: skip
def test_what_went_wrong_or_is_unknown_stays(action: str, passing: bool, logged: bool) -> None:
    event = Narration(actor="queen-rbee", action=action, target="x", human="So it is")
    assert (narration.is_passing(event), narration.is_logged(event)) == (passing, logged)
