"""The engine's loop over a back-end that computes nothing: whatever comes in between, each job's text is its own."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbee.errors import AllSlotsBusyError, CancelledError, InternalError, RbeeError, WorkerFailedError
from rbee.worker.engine.backend import EngineFailedError
from rbee.worker.engine.sequence import JobEnded
from tests.kit.engine_bench import Bench, read, running
from tests.kit.markov import MarkovBackend, MarkovSampler, MarkovVocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.worker.engine.slots import JobHandle


def chain(prompt: str, count: int) -> str:
    """Return what follows a prompt, at most `count` letters."""

    def letters() -> Iterator[str]:
        letter = prompt[-1]
        while letter != "z":
            letter = "A" if letter == "Z" else chr(ord(letter) + 1)
            yield letter

    return "".join(islice(letters(), count))


@given(
    st.lists(
        st.tuples(
            st.text("AMYa", min_size=1, max_size=80),
            st.integers(1, 60),
            st.sampled_from(["read", "read", "cancel", "leave", "silent"]),
            st.integers(0, 30),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(145, 400),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_each_job_gets_its_own_text_whatever_happens_to_the_others(
    jobs: list[tuple[str, int, str, int]], room: int, can_cut: bool
) -> None:
    """Jobs that are cancelled, left or preempted at any step, in a memory that often has no room for all."""
    moments: list[tuple[int, trio.Event]] = []
    token = trio.lowlevel.current_trio_token()

    def before_decode(number: int) -> None:
        for at, moment in moments:
            if at == number:
                token.run_sync_soon(moment.set)

    bench = Bench(MarkovBackend(room=room, batch=16, can_cut=can_cut, before_decode=before_decode))

    async def one(prompt: str, limit: int, how: str, step: int) -> None:
        while True:
            try:
                job = bench.start(prompt, limit, scored=limit % 2 == 1)
                break
            except AllSlotsBusyError:
                await bench.status.changed.wait()
        expected = chain(prompt, limit)
        moment = trio.Event()
        moments.append((bench.backend.decodes + step, moment))
        with trio.CancelScope() as leaving:
            async with trio.open_nursery() as nursery:

                async def disturb() -> None:
                    await moment.wait()
                    if how == "cancel":
                        await job.cancel()
                    elif how == "leave":
                        leaving.cancel()
                    elif how == "silent":
                        bench.slots.set_silent(job, True)
                        with trio.move_on_after(0.002):
                            await bench.status.changed.wait()
                        bench.slots.set_silent(job, False)

                nursery.start_soon(disturb)
                text, ended = await read(job)
                nursery.cancel_scope.cancel()
            if isinstance(ended.outcome, RbeeError):
                assert how == "cancel"
                assert isinstance(ended.outcome, CancelledError)
                assert expected.startswith(text)
            else:
                assert text == expected
                letters = bench.backend.vocabulary.tokenize(prompt)
                named = [bench.backend.follows.get(letter) for letter in letters]
                scores = [(one, 0.0 if one == name else -1.0) for one, name in zip(letters[1:], named, strict=False)]
                assert bench.scored(job) == (scores if limit % 2 else [])
                assert ended.tokens == len(expected)
                assert ended.outcome == ("length" if len(expected) == limit else "eos")

    async with running(bench) as nursery:
        for job in jobs:
            nursery.start_soon(one, *job)


async def test_a_job_that_never_fits_fails_alone() -> None:
    bench = Bench(MarkovBackend(room=50))

    async def small() -> None:
        assert (await read(bench.start("M", 30)))[0] == chain("M", 30)

    async def large() -> None:
        _, ended = await read(bench.start("A" * 60, 10))
        assert isinstance(ended.outcome, WorkerFailedError)
        assert "no room" in ended.outcome.message

    async with running(bench) as nursery:
        nursery.start_soon(small)
        nursery.start_soon(large)


@pytest.mark.parametrize("where", ["new_sampler", "sample", "piece"])
async def test_what_nobody_foresaw_ends_one_job_alone(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    bench = Bench(MarkovBackend())
    owner = {"new_sampler": MarkovBackend, "sample": MarkovSampler, "piece": MarkovVocabulary}[where]
    real = getattr(owner, where)
    calls = 0

    def fail_once(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError
        return real(*arguments, **options)

    monkeypatch.setattr(owner, where, fail_once)
    async with running(bench):
        first, second = bench.start("A", 5), bench.start("K", 5)
        ends = [await read(first), await read(second)]
    failed = [end.outcome for _, end in ends if isinstance(end.outcome, RbeeError)]
    assert [type(error) for error in failed] == [InternalError]
    assert [text for text, end in ends if end.outcome == "length"] in ([chain("A", 5)], [chain("K", 5)])


async def test_a_stop_string_ends_a_job_and_is_not_shown() -> None:
    bench = Bench(MarkovBackend())
    async with running(bench):
        text, ended = await read(bench.start("A", 60, stop=["FGH"]))
        assert (text, ended.outcome, ended.tokens) == ("BCDE", "stop", 7)


@pytest.mark.parametrize("error", [EngineFailedError("on purpose"), ZeroDivisionError()])
async def test_a_failure_of_the_backend_ends_all_jobs_preempted_ones_too(error: Exception) -> None:
    def before_decode(number: int) -> None:
        if number == 20:
            raise error

    bench = Bench(MarkovBackend(slots=2, before_decode=before_decode))
    outcomes: list[object] = []

    async def one(job: JobHandle) -> None:
        outcomes.append((await read(job))[1].outcome)

    async with trio.open_nursery() as nursery:
        jobs = [bench.start("A", 400), bench.start("A", 400)]
        bench.slots.set_silent(jobs[0], True)
        jobs.append(bench.start("A", 400))
        for job in jobs:
            nursery.start_soon(one, job)
        with pytest.raises(type(error)):
            await bench.engine.run()
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert outcome is error if isinstance(error, EngineFailedError) else isinstance(outcome, WorkerFailedError)
    bench.check_clean()
    # What comes later ends at once.
    _, ended = await read(bench.start("A", 4))
    assert isinstance(ended.outcome, WorkerFailedError)


async def test_a_long_prompt_is_read_in_parts_while_others_write() -> None:
    bench = Bench(MarkovBackend(batch=16))
    jobs = [bench.start("A" * 400, 8), bench.start("A", 8)]
    async with running(bench) as nursery:
        for job in jobs:
            nursery.start_soon(read, job)
    assert [event.number for event in bench.events if isinstance(event, JobEnded)] == [1, 0]
    assert bench.backend.decodes >= 400 / 16


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("step", range(1, 12))
async def test_a_job_cancelled_within_a_decode_takes_nothing_from_the_others(can_cut: bool, step: int) -> None:
    def before_decode(number: int) -> None:
        if number == step:
            bench.engine.cancel(jobs[0].number)

    bench = Bench(MarkovBackend(batch=16, can_cut=can_cut, before_decode=before_decode))
    jobs = [bench.start("A" * 90, 30), bench.start("M" * 50, 30), bench.start("Y", 30)]
    outcomes: dict[int, tuple[str, object]] = {}

    async def one(job: JobHandle) -> None:
        text, ended = await read(job)
        outcomes[job.number] = text, ended.outcome

    async with running(bench) as nursery:
        for job in jobs:
            nursery.start_soon(one, job)
    assert isinstance(outcomes[0][1], CancelledError)
    assert outcomes[1] == (chain("M", 30), "length")
    assert outcomes[2] == (chain("Y", 30), "length")


async def test_how_much_of_a_prompt_is_read_is_known_within_a_step_too() -> None:
    seen: list[int] = []

    def look(_: int) -> None:
        for backend.share in (0.0, 0.25, 1.0):
            seen.append(job.prompt_read)

    backend = MarkovBackend(length=512, batch=64, before_decode=look)
    backend.prompt_step = 32
    bench = Bench(backend)
    async with running(bench):
        job = bench.start("a" * 95, 2)
        assert job.prompt_read == 0
        assert (await read(job))[0] == "bc"
    assert seen[:9] == [0, 8, 32, 32, 40, 64, 64, 72, 96]
    assert set(seen[9:]) == {96}, "the prompt had 96 tokens, and what follows is none of it"


async def test_a_seeded_job_that_has_the_engine_to_itself_is_computed_by_all_threads() -> None:
    """Whatever else the machine does: the number of threads may decide what the text is."""
    threads: list[int] = []
    backend = MarkovBackend(before_decode=lambda _: threads.append(backend.decoding_threads))
    bench = Bench(backend)
    bench.engine.stepper.thread_count.threads = 1  # other programs have displaced threads
    async with running(bench):
        await read(bench.start("A", 20))
        assert set(threads[1:]) == {1}
        threads.clear()
        await read(bench.start("A", 20, seed=7))
        assert set(threads) == {2}
        threads.clear()
        await read(bench.start("A", 20))
        assert set(threads) == {1}


async def test_seeded_jobs_beside_each_other_are_computed_by_as_many_threads_as_are_of_use() -> None:
    threads: list[int] = []
    backend = MarkovBackend(before_decode=lambda _: threads.append(backend.decoding_threads))
    bench = Bench(backend)
    bench.engine.stepper.thread_count.threads = 1
    jobs = [bench.start("A", 40, seed=seed) for seed in (1, 2)]  # before the engine runs, so none is ever alone
    async with running(bench) as nursery:
        for job in jobs:
            nursery.start_soon(read, job)
    assert set(threads) == {1}


async def test_a_job_says_how_long_its_prompt_and_its_text_took() -> None:
    def before(number: int) -> None:
        time.sleep(0.05 if number <= 4 else 0.01)

    bench = Bench(MarkovBackend(length=512, batch=64, before_decode=before))
    async with running(bench):
        _, ended = await read(bench.start("a" * 199, 11))
    assert ended.prompt_seconds >= 0.2
    assert ended.text_seconds >= 0.1
