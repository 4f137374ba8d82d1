"""Which workers are known to have read a prompt's beginning, and what that is worth."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.queen.scheduling.known_prompts import (
    ANSWER,
    LEAST,
    MAX_LINKS_KNOWN,
    MAX_PATIENCE,
    MAX_READERS,
    KnownBeginning,
    KnownPrompts,
)
from rbee.queen.scheduling.prompt_links import Link, PromptLinks
from rbee.wire.hive import WorkerRow
from rbee.wire.worker import EndedRequest


def prompt(*names: str, session: str = "", each: int = 1000) -> PromptLinks:
    """Return a prompt of which each piece has a name; as in real ones each link stands for all before it."""
    chain = ["/".join(names[: count + 1]).encode() for count in range(len(names))]
    found = tuple(Link(digest, each * (count + 1)) for count, digest in enumerate(chain))
    return PromptLinks(found, each * len(names) + 200, session.encode() or None)


def worker(worker_id: str, slots: int = 1) -> WorkerRow:
    return WorkerRow(
        id=worker_id, url="http://127.0.0.1:8001", model_ref="m", backend="cpu", device=0, state="busy",
        slots_total=slots, slots_available=0, pid=1,
    )  # fmt: skip


def ended(worker_id: str, *, read: int = 250, cached: int = 0, first_ms: float = 500, ms: float = 1000) -> EndedRequest:
    return EndedRequest(
        request_id="r",
        worker_id=worker_id,
        prompt_tokens=read + cached,
        cached_tokens=cached,
        total_tokens=1,
        first_token_ms=first_ms,
        duration_ms=ms,
        end="eos",
    )


def known(prompts: KnownPrompts, asked: PromptLinks) -> dict[str, int]:
    found = prompts.of(asked)
    return {} if found is None else dict(found.read)


def test_each_worker_has_read_the_longest_beginning_that_it_was_given() -> None:
    prompts = KnownPrompts()
    prompts.note(prompt("system", "a"), "w1")
    prompts.note(prompt("system", "b", "more"), "w2")
    assert known(prompts, prompt("system", "b", "more", "new")) == {"w2": 3000, "w1": 1000}
    assert known(prompts, prompt("system", "c")) == {"w1": 1000, "w2": 1000}
    assert prompts.of(prompt("other")) is None


def test_what_is_short_does_not_count() -> None:
    prompts = KnownPrompts()
    short = prompt("a", each=LEAST - 1)
    prompts.note(short, "w")
    assert prompts.of(short) is None


def test_a_session_counts_where_nothing_is_known_to_have_been_read() -> None:
    prompts = KnownPrompts()
    prompts.note(prompt("a", session="s"), "w1")
    prompts.note(prompt("b"), "w2")
    found = prompts.of(prompt("c", session="s"))
    assert found is not None
    assert (found.read, found.hinted, found.knows("w1"), found.knows("w2")) == ({}, ("w1",), True, False)
    assert found.cost("w1", 0) < found.cost("w2", 0) < found.cost("w1", 1)
    assert known(prompts, prompt("b", session="s")) == {"w2": 1000}


def test_a_worker_that_has_ended_is_forgotten() -> None:
    prompts = KnownPrompts()
    for name in ("w1", "w2"):
        prompts.note(prompt("a", session="s"), name)
        prompts.on_ended(ended(name))
    prompts.forget("w2")
    assert known(prompts, prompt("a")) == {"w1": 1000}
    prompts.forget("w1")
    assert prompts.of(prompt("a", session="s")) is None
    for name in ("w3", "w4"):
        prompts.note(prompt("a"), name)
    assert known(prompts, prompt("a")) == {"w3": 1000, "w4": 1000}


def test_as_much_is_remembered_as_was_used_last() -> None:
    prompts = KnownPrompts()
    prompts.note(prompt("kept"), "w")
    prompts.note(prompt("lost"), "w")
    for number in range(MAX_LINKS_KNOWN - 1):
        prompts.note(prompt(str(number)), "w")
        if number % 1000 == 0:
            prompts.note(prompt("kept"), "w")
    assert known(prompts, prompt("kept")) == {"w": 1000}
    assert prompts.of(prompt("lost")) is None
    for number in range(MAX_READERS + 2):
        prompts.note(prompt("kept"), f"w{number}")
    assert sorted(known(prompts, prompt("kept"))) == [f"w{number}" for number in range(2, MAX_READERS + 2)]


def measured(*ends: EndedRequest, read: dict[str, int]) -> KnownBeginning:
    prompts = KnownPrompts()
    for end in ends:
        prompts.on_ended(end)
    return KnownBeginning(10_000, read, (), prompts._measures)


def test_it_costs_more_where_others_share_the_device() -> None:
    found = measured(read={"w1": 9000})
    assert found.cost("w1", 0) == 1000 + ANSWER
    assert found.cost("w1", 8) < found.cost("w2", 0) < found.cost("w1", 10)


READS_2000: Any = {"read": 250, "first_ms": 500}
"""Of 4 characters each: 2000 characters in a second."""


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ([], 0),
        ([ended("full", **READS_2000)], 4),
        ([ended("full", **READS_2000), ended("free", read=500, first_ms=500)], 2),
        ([ended("free", **READS_2000)], 0),
        ([ended("full", read=20, first_ms=500)], 0),
        ([ended("full", read=250, cached=5000, first_ms=500)], 4),
        ([ended("full", **READS_2000, ms=9000)], 0),
        ([ended("full", read=250, first_ms=500_000)], MAX_PATIENCE),
        ([ended("full", read=250, first_ms=500_000), ended("full", **READS_2000)], 4),
    ],
    ids=[
        "nothing is known",
        "as long as it takes to read it",
        "as long as the other one takes",
        "how soon slots get free is not known",
        "too short to tell",
        "what was known took no time",
        "slots get free later",
        "bounded",
        "the fastest",
    ],
)
def test_how_long_it_is_worth_to_wait_for_a_slot(ends: list[EndedRequest], seconds: float) -> None:
    found = measured(*ends, read={"full": 8000})
    assert found.patience(worker("full"), worker("free")) == pytest.approx(seconds)
    assert found.patience(worker("free"), worker("full")) == 0


def test_slots_of_a_worker_with_many_get_free_sooner() -> None:
    found = measured(ended("full", **READS_2000, ms=9000), read={"full": 8000})
    assert found.patience(worker("full", slots=4), worker("free")) == 4


def test_a_refusal_measures_nothing() -> None:
    found = measured(EndedRequest(request_id="r", worker_id="full", duration_ms=1, end="BUSY"), read={"full": 8000})
    assert found.measures == {}
