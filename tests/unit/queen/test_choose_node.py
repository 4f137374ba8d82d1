"""Which node takes a request whose user has named none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import (
    AllSlotsBusyError,
    CancelledError,
    ConnectionTimeoutError,
    DownloadFailedError,
    InvalidRequestError,
    OutOfMemoryError,
    RbeeError,
    SshFailedError,
)
from rbee.narrower_errors import LineFullError
from rbee.queen.scheduling.choose_node import Candidate, Choice, rank, remaining
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.wire.hive import WorkerRow
from rbee.wire.model_copy import FileStat

if TYPE_CHECKING:
    from rbee.queen.hives.mirror import Devices

REF = "hf:org/repo"
GB = 10**9
ANY = Wanted(REF, None, None)


def worker(state: str, free: int = 0, **changed: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": state,
        "url": "http://127.0.0.1:8001",
        "model_ref": REF,
        "backend": "cpu",
        "device": 0,
        "state": state,
        "slots_total": 4,
        "slots_available": free,
        "pid": 1,
    }
    return WorkerRow(**(values | changed))


def runs(node: str, *workers: WorkerRow, free: int = 8, **devices: list[int]) -> Candidate:
    known = {"cpu": [free * GB]} | {name: [each * GB for each in more] for name, more in devices.items()}
    return Candidate(node, True, workers, known)


def sleeps(node: str, devices: Devices | None = None) -> Candidate:
    return Candidate(node, False, [], {"cpu": [None]} if devices is None else devices)


def order(*candidates: Candidate, wanted: Wanted = ANY) -> list[str]:
    return [choice.node for choice in rank(candidates, wanted)]


def test_a_warm_idle_worker_comes_before_free_memory() -> None:
    assert order(runs("local", free=64), runs("a", worker("idle", 4), free=1)) == ["a", "local"]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (worker("idle", 4), worker("idle", 2)),
        (worker("idle", 1), worker("busy", 3)),
        (worker("busy", 1), worker("loading")),
    ],
)
def test_of_two_warm_nodes_the_one_with_the_freer_worker(better: WorkerRow, worse: WorkerRow) -> None:
    assert order(runs("a", worse), runs("b", better)) == ["b", "a"]


def test_of_two_equal_workers_the_one_on_the_queens_own_host() -> None:
    assert order(runs("a", worker("idle", 4)), runs("local", worker("idle", 2))) == ["local", "a"]


def test_another_node_comes_before_one_whose_slots_are_taken() -> None:
    assert order(runs("local", worker("busy")), runs("a", free=1)) == ["a", "local"]


def test_a_worker_with_another_model_warms_nothing() -> None:
    assert order(runs("local"), runs("a", worker("idle", 4, model_ref="hf:org/other"))) == ["local", "a"]


def test_more_free_memory_comes_first_and_little_more_is_none() -> None:
    assert order(runs("local", free=10), runs("a", free=12), runs("b", free=30)) == ["b", "a", "local"]
    assert order(runs("local", free=10), runs("a", free=12)) == ["local", "a"]


def test_an_accelerator_decides_between_nodes_with_like_memory() -> None:
    assert order(runs("local", free=16), runs("a", free=16, cuda=[12])) == ["a", "local"]
    assert order(runs("local", free=64), runs("a", free=16, cuda=[12])) == ["local", "a"]


def test_the_model_on_the_disk_decides_between_nodes_that_are_alike() -> None:
    has_it = runs("b", free=16)._replace(has_model=True)
    assert order(runs("local", free=16), runs("a", free=16), has_it) == ["b", "local", "a"]
    assert order(runs("local", free=64), has_it) == ["local", "b"]
    assert order(runs("a", free=16, cuda=[16]), has_it) == ["a", "b"]
    assert order(runs("a", worker("idle", 1), free=1), has_it) == ["a", "b"]
    assert rank([has_it], ANY)[0].reason == "16.0 GB of memory are free there, and the model is on its disk"


def test_only_nodes_with_the_backend_and_device_asked_for() -> None:
    nodes = (runs("local", free=64), runs("a", cuda=[12]), runs("b", cuda=[12, 24]))
    assert order(*nodes, wanted=Wanted(REF, "cuda", None)) == ["b", "a"]
    assert order(*nodes, wanted=Wanted(REF, "cuda", 1)) == ["b"]
    assert order(*nodes, wanted=Wanted(REF, "metal", None)) == ["local"]


def test_a_hive_that_does_not_run_is_started_where_others_cannot_serve() -> None:
    assert order(runs("local"), sleeps("a")) == ["local", "a"]
    assert order(runs("local", worker("busy")), sleeps("a")) == ["a", "local"]
    assert order(runs("local"), sleeps("a", {"cuda": [None]}), wanted=Wanted(REF, "cuda", None)) == ["a"]


def test_a_file_is_one_of_the_queens_own_host() -> None:
    file = Wanted("file:/models/a.gguf", None, None)
    assert order(runs("local", free=1), runs("a", free=64), wanted=file) == ["local"]
    warm = runs("a", worker("idle", 4, model_ref=file.model_ref))
    assert order(runs("local"), warm, wanted=file) == ["a", "local"]


def test_a_file_is_also_one_of_a_node_that_has_the_same() -> None:
    file = Wanted("file:/models/a.gguf", None, None)
    new, old = FileStat(size_bytes=9, modified_ns=2), FileStat(size_bytes=9, modified_ns=1)
    here = runs("local", free=1)._replace(file=new)
    same, other = runs("a", free=64)._replace(file=new), runs("b", free=64)._replace(file=old)
    assert order(here, same, other, wanted=file) == ["a", "local"]
    assert order(here._replace(file=None), same, other, wanted=file)[:2] == ["a", "b"], "it is not the queen's to say"
    stale = runs("b", worker("idle", 4, model_ref=file.model_ref))._replace(file=old)
    assert order(here, stale, wanted=file) == ["local"]


def test_a_file_is_brought_to_another_node_where_the_queens_host_lacks_what_was_asked_for() -> None:
    file = Wanted("file:/models/a.gguf", "cuda", None)
    here = runs("local")._replace(file=FileStat(size_bytes=9, modified_ns=2))
    assert order(here, runs("a"), runs("b", cuda=[8]), wanted=file) == ["b"]
    assert order(here._replace(file=None), runs("b", cuda=[8]), wanted=file) == ["local"], "there is nothing to bring"


def test_the_reason_is_told_in_words() -> None:
    choices = rank([runs("local", free=8), runs("a", worker("idle", 4)), sleeps("b")], ANY)
    assert [(choice.node, choice.is_running, choice.reason) for choice in choices] == [
        ("a", True, f"a worker with {REF} is idle there"),
        ("local", True, "8.0 GB of memory are free there"),
        ("b", False, "its hive can be started"),
    ]


STATES = st.sampled_from(["idle", "busy", "loading", "draining", "unhealthy"])
NODES = st.builds(
    lambda is_running, states, free: (is_running, [worker(state, 1) for state in states], {"cpu": [free]}),
    st.booleans(),
    st.lists(STATES, max_size=3),
    st.none() | st.integers(0, 10**12),
)


@given(st.lists(NODES, min_size=1, max_size=5))
def test_each_node_is_named_once_whatever_the_order_of_the_answers(found: list[Any]) -> None:
    candidates = [Candidate(f"n{number}", *one) for number, one in enumerate(found)]
    chosen = order(*candidates)
    assert sorted(chosen) == sorted(one.node for one in candidates)
    assert order(*reversed(candidates)) == chosen


COLD, FULL, AWAY = Choice("cold", True, ""), Choice("full", True, "", is_full=True), Choice("away", False, "")


@pytest.mark.parametrize(
    ("tried", "error", "left"),
    [
        (AWAY, SshFailedError("refused"), [COLD, FULL]),
        (COLD, ConnectionTimeoutError("lost"), [COLD, FULL]),
        (COLD, OutOfMemoryError("too big"), [FULL]),
        (COLD, DownloadFailedError("no network"), [FULL]),
        (COLD, InvalidRequestError("no"), []),
        (COLD, CancelledError("no"), []),
        (FULL, LineFullError("100 wait", waiting=100), [COLD, FULL]),
        (FULL, AllSlotsBusyError("in vain", waited_s=600), []),
    ],
    ids=lambda value: value.code if isinstance(value, RbeeError) else "",
)
def test_a_node_that_cannot_take_a_request_leaves_it_to_those_that_may(
    tried: Choice, error: RbeeError, left: list[Choice]
) -> None:
    """A worker to wait for is better than the error of a node that has no room for another one."""
    assert remaining([COLD, FULL], tried, error) == left
