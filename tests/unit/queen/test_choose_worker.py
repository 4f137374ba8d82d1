"""Which worker serves a request."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.scheduling.choose_worker import Wanted, choose_worker, fitting
from rbee.wire.common import WorkerState
from rbee.wire.hive import WorkerRow

REF = "builtin:bee-stories"
STATES = get_args(WorkerState)


def row(state: str = "idle", **changed: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": state,
        "url": "http://127.0.0.1:8001",
        "model_ref": REF,
        "backend": "cpu",
        "device": 0,
        "state": state,
        "slots_total": 4,
        "slots_available": 4 if state == "idle" else 0,
        "pid": 1,
    }
    return WorkerRow(**(values | changed))


ANY = Wanted(REF, None, None)


def test_without_workers_one_has_to_be_started() -> None:
    assert choose_worker([], ANY) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"model_ref": "hf:org/repo"},
        {"model_ref": REF.upper()},
        {"url": ""},
        {"state": "draining"},
        {"state": "unhealthy"},
    ],
)
def test_a_worker_that_does_not_fit_is_not_chosen(changed: dict[str, Any]) -> None:
    assert choose_worker([row(**changed)], ANY) is None


@pytest.mark.parametrize("wanted", [Wanted(REF, "cuda", None), Wanted(REF, None, 1), Wanted(REF, "cuda", 0)])
def test_backend_and_device_must_be_those_asked_for(wanted: Wanted) -> None:
    assert choose_worker([row()], wanted) is None
    other = row(id="other", backend=wanted.backend or "cpu", device=wanted.device or 0)
    assert choose_worker([row(), other], wanted) == other


def test_a_worker_has_room_for_what_is_asked_for_or_does_not_say() -> None:
    workers = [row(id="old"), row(id="short", context=4096), row(id="long", context=8192)]
    for context, fit in ((None, ["old", "short", "long"]), (4096, ["old", "short", "long"]), (4097, ["old", "long"])):
        found = fitting(workers, Wanted(REF, None, None, context))
        assert [worker.id for worker in found] == fit


@pytest.mark.parametrize("wanted", [ANY, Wanted(REF, "cpu", None), Wanted(REF, None, 0), Wanted(REF, "cpu", 0)])
def test_an_idle_match_is_chosen(wanted: Wanted) -> None:
    assert choose_worker([row()], wanted) == row()


def test_idle_comes_before_loading_and_loading_before_busy() -> None:
    workers = [row("unhealthy"), row("busy"), row("loading"), row("idle"), row("draining")]
    for expected in ("idle", "loading", "busy"):
        chosen = choose_worker(workers, ANY)
        assert chosen is not None
        assert chosen.state == expected
        workers.remove(chosen)
    assert choose_worker(workers, ANY) is None


def test_of_two_busy_ones_the_one_with_a_free_slot_is_chosen() -> None:
    full, free = row("busy", id="full"), row("busy", id="free", slots_available=2)
    assert choose_worker([full, free], ANY) == free
    assert choose_worker([free, full], ANY) == free


ROWS = st.builds(
    row,
    st.sampled_from(STATES),
    model_ref=st.sampled_from([REF, "hf:a/b"]),
    backend=st.sampled_from(["cpu", "cuda"]),
    device=st.integers(0, 1),
    url=st.sampled_from(["", "http://x:1"]),
    slots_available=st.integers(0, 4),
)
WANTED = st.builds(
    Wanted, st.sampled_from([REF, "hf:a/b"]), st.sampled_from([None, "cpu", "cuda"]), st.sampled_from([None, 0, 1])
)


@given(st.lists(ROWS, max_size=6), WANTED)
def test_what_is_chosen_always_fits_and_is_found_in_any_order(workers: list[WorkerRow], wanted: Wanted) -> None:
    chosen = choose_worker(workers, wanted)
    again = choose_worker(workers[::-1], wanted)
    assert (chosen is None) == (again is None)
    if chosen is None or again is None:
        return
    assert chosen.model_ref == wanted.model_ref
    assert wanted.backend in (None, chosen.backend)
    assert wanted.device in (None, chosen.device)
    assert chosen.state in ("idle", "loading", "busy")
    assert (chosen.state, chosen.slots_available) == (again.state, again.slots_available)
