"""What a user is told whose node is not in the registry: the node that was meant, and how one is registered."""

from __future__ import annotations

import pytest

from rbee.queen.registry.table import not_found, not_there_to_remove


@pytest.mark.parametrize(
    ("known", "hint"),
    [
        (["attic", "cellar"], "did you mean attic?"),
        (["Atic"], "did you mean Atic?"),
        (["cellar", "barn"], "registered are: barn, cellar"),
        ([], "no node is registered"),
        (
            [f"n{number}" for number in range(12)],
            "registered are: n0, n1, n10, n11, n2, n3, n4, n5, n6, n7, and 2 more",
        ),
    ],
)
def test_who_removes_a_node_is_told_which_there_are(known: list[str], hint: str) -> None:
    assert not_there_to_remove("atic", known).hint == hint


def test_who_uses_a_node_is_told_which_was_meant_and_how_one_is_registered() -> None:
    registers = "to register it: rbee setup add-node --name atic --ssh-host HOST --ssh-user USER"
    near, far = not_found("atic", ["local", "attic"]).hint or "", not_found("atic", ["local"]).hint or ""
    assert near.startswith("did you mean attic? ")
    assert near.endswith(registers)
    assert far == f"`rbee setup list-nodes` shows the nodes; {registers}"
