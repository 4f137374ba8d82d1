"""The memory of llama.cpp's back-end: sequences that are copied, saved and restored go on as they would have."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rbee
from rbee.errors import ModelLoadFailedError
from rbee.wire.common import CACHE_TYPES, Sampling
from rbee.worker.engine.backend import BatchPart, DecodeAbortedError, NoRoomError, StateMismatchError
from rbee.worker.llama import header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model
from tests.kit.models import make
from tests.kit.odd_models import chain
from tests.kit.other_memories import WINDOW, make_recurrent, make_windowed
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRAWN = Sampling(temperature=3, top_k=0, top_p=1, min_p=0, seed=7)
"""Each token depends on all logits, and so on all that came before."""
PROMPT = "There was a bee, and it had something to say about the weather"
BEES = Path(rbee.__file__).parent / "data" / "bee-stories.Q8_0.gguf"
LENGTH = 128
"""Tokens of a slot; llama.cpp's pool has no fewer than 256 cells, which two of these are."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Model]]:
    """Models of random weights."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, Model] = {}

    def model(name: str, *, layers: int = 2) -> Model:
        if name not in made:
            path = make(folder / f"{name}.gguf", random=True, layers=layers)
            made[name] = Model(path, header.read(path))
        return made[name]

    yield model
    for each in made.values():
        each.close()


@pytest.fixture
def context(models: Callable[..., Model]) -> Iterator[Context]:
    context = Context(models("one"), slots=2, length=LENGTH, threads=1)
    yield context
    context.close()


def generate(context: Context, sequence: int, tokens: list[int], start: int, count: int = 16) -> list[int]:
    """Return the tokens that follow `tokens`, of which the memory holds the first `start`."""
    sampler = context.new_sampler(DRAWN)
    tokens = list(tokens)
    first = len(tokens)
    for _ in range(count):
        (row,) = context.decode([BatchPart(sequence, tokens[start:], start, True)])
        start = len(tokens)
        tokens.append(sampler.sample(row))
    sampler.close()
    return tokens[first:]


def test_a_copy_of_any_beginning_gives_the_same_tokens(context: Context) -> None:
    prompt = context.vocabulary.tokenize(PROMPT)
    expected = generate(context, 0, prompt, 0)
    assert len(set(expected)) > 8
    assert generate(context, 1, context.vocabulary.tokenize("Where" + PROMPT[5:]), 0) != expected
    for length in (1, 20, len(prompt) - 1):
        assert context.copy(0, 1, length)
        assert generate(context, 1, prompt, length) == expected
    # Whatever becomes of the copy, the original is whole.
    context.remove(1)
    more = generate(context, 0, prompt + expected, len(prompt) + len(expected) - 1)
    context.remove(0)
    assert generate(context, 0, prompt + expected, 0) == more


def test_cells_of_others_change_nothing(models: Callable[..., Model]) -> None:
    """Attention passes over those that it cannot see, 64 at a time: before, between and behind those that it can."""
    with closing(Context(models("one"), slots=4, length=256, threads=1)) as context:
        prompt = context.vocabulary.tokenize(PROMPT)
        long = context.vocabulary.tokenize("a" * 90)  # enough rows for tiles
        other = context.vocabulary.tokenize("b" * 256)
        expected = {0: generate(context, 0, prompt, 0), 1: generate(context, 1, long, 0)}
        assert len(set(expected[0])) > 8
        assert len(set(expected[1])) > 8
        for sequence in expected:
            context.remove(sequence)
        context.decode([BatchPart(2, other[:130], 0, False)])  # a tile of them, and a part of one
        rows = context.decode([BatchPart(0, prompt, 0, True), BatchPart(1, long, 0, True)])
        samplers = [context.new_sampler(DRAWN) for _ in expected]
        tokens: dict[int, list[int]] = {0: [], 1: []}
        for step in range(16):
            for sequence, row in enumerate(rows):
                tokens[sequence].append(samplers[sequence].sample(row))
            context.decode([BatchPart(2, [other[step]], 130 + step, False)])  # from now on between theirs
            ends = (len(prompt) + step, len(long) + step)
            rows = context.decode([BatchPart(n, tokens[n][-1:], ends[n], True) for n in tokens])
        assert tokens == expected


@pytest.mark.parametrize("length", [3, 60, 150])
def test_where_the_cells_of_a_sequence_lie_changes_no_bit(models: Callable[..., Model], length: int) -> None:
    """Two threads share what one token sees, and a tile of a prompt has what its rows see: not the pool, in parts."""
    seen = []
    for others_are in ("before", "behind", "nowhere"):
        with closing(Context(models("one"), slots=2, length=512, threads=2)) as context:
            prompt = context.vocabulary.tokenize((PROMPT * 3)[:length])
            others = context.vocabulary.tokenize("b" * 600)
            mine = BatchPart(0, prompt, 0, False)
            theirs = [BatchPart(1, others[at : at + 200], at, False) for at in range(0, 600, 200)]
            orders = {"before": [*theirs, mine], "behind": [mine, *theirs], "nowhere": [mine]}
            for part in orders[others_are]:
                context.decode([part])
            sampler = context.new_sampler(Sampling(temperature=0, logprobs=20))
            (row,) = context.decode([BatchPart(0, prompt[:1], len(prompt), True)])
            sampler.sample(row)
            assert sampler.logprob is not None
            seen.append([chance.logprob for chance in sampler.logprob.top])
            sampler.close()
    assert len(set(seen[0])) == 20
    assert seen[0] == seen[1] == seen[2]


def test_how_much_of_a_decode_is_computed_is_seen_from_another_thread(context: Context) -> None:
    tokens = context.vocabulary.tokenize("a" * LENGTH)

    def look_while_decoding() -> list[float]:
        """Return what was seen of one decode."""
        context.clear_abort()
        context.remove(0)
        decoding = threading.Thread(target=context.decode, args=([BatchPart(0, tokens[:LENGTH], 0, True)],))
        decoding.start()
        seen = [context.decoded()]
        while decoding.is_alive():
            seen.append(context.decoded())
        decoding.join()
        assert seen == sorted(seen)
        assert context.decoded() == 1.0
        return seen

    # The first one is known to move; how far it has to go is known after it. This thread sees some of one in time.
    assert look_while_decoding()[-1] <= 1
    wait_until(lambda: any(0.05 < share < 0.95 for share in look_while_decoding()), "a part of a decode is seen")
    context.abort()
    assert context.decoded() == 0.0


def test_a_copy_takes_no_room(context: Context) -> None:
    tokens = context.vocabulary.tokenize("a" * 150)
    context.decode([BatchPart(0, tokens, 0, True)])
    assert context.copy(0, 1, 150)
    context.decode([BatchPart(1, tokens[:50], 150, True)])
    context.remove(0)
    with pytest.raises(NoRoomError):
        context.decode([BatchPart(0, tokens, 0, True)])


def test_a_sequence_beyond_those_that_are_decoded_holds_a_copy(context: Context) -> None:
    """llama.cpp documents none above `n_seq_max`, but a cell of its unified cache has a bit for each of 256."""
    prompt = context.vocabulary.tokenize(PROMPT)
    expected = generate(context, 0, prompt, 0)
    kept = context.spare[-1]
    assert context.copy(0, kept, len(prompt) - 1)
    context.remove(0)
    assert context.copy(kept, 1, 20)
    assert generate(context, 1, prompt, 20) == expected
    context.remove(1)
    # What it holds can be saved in parts, and put back in parts.
    ends = [10, 50, len(prompt) - 1]
    parts = [context.save(kept, start, end) for start, end in pairwise([0, *ends])]
    context.remove(kept)
    for part in parts:
        context.restore(1, part)
    assert context.save(1).end == len(prompt) - 1
    assert generate(context, 1, prompt, len(prompt) - 1) == expected
    with pytest.raises(ValueError, match="follows no"):
        context.restore(0, parts[1])
    # All cells are free once the copies are gone.
    context.remove(1)
    context.decode([BatchPart(0, context.vocabulary.tokenize("a" * (2 * LENGTH))[: 2 * LENGTH], 0, True)])


@pytest.mark.parametrize(("source", "target", "length"), [(0, 0, 5), (0, 1, 0), (0, 1, 64), (1, 0, 1)])
def test_what_is_not_there_cannot_be_copied(context: Context, source: int, target: int, length: int) -> None:
    context.decode([BatchPart(0, context.vocabulary.tokenize("a" * 62), 0, True)])
    with pytest.raises(ValueError, match="cannot copy"):
        context.copy(source, target, length)


def test_a_restored_state_gives_the_same_tokens(context: Context, models: Callable[..., Model]) -> None:
    prompt = context.vocabulary.tokenize(PROMPT)
    context.decode([BatchPart(0, prompt[:-1], 0, False)])
    state = context.save(0)
    assert state.end == len(prompt) - 1
    expected = generate(context, 0, prompt, len(prompt) - 1)
    context.remove(0)
    for sequence in (0, 1):
        context.restore(sequence, state)
        assert generate(context, sequence, prompt, state.end) == expected
    other = Context(models("one"), slots=1, length=512, threads=1)
    other.restore(0, state)
    assert generate(other, 0, prompt, state.end) == expected
    other.close()


def test_a_state_for_which_there_is_no_room_leaves_the_sequence_empty(context: Context) -> None:
    tokens = context.vocabulary.tokenize("a" * 150)
    context.decode([BatchPart(0, tokens, 0, True)])
    state = context.save(0)
    with pytest.raises(NoRoomError):
        context.restore(1, state)
    assert context.save(1).end == 0
    # The others are as they were, and room that is made is used.
    assert context.save(0) == state
    context.remove(0)
    context.restore(1, state)
    assert context.save(1).end == state.end


def test_a_state_of_another_model_is_refused(context: Context, models: Callable[..., Model]) -> None:
    context.decode([BatchPart(0, context.vocabulary.tokenize(PROMPT), 0, True)])
    state = context.save(0)
    for other in (models("two"), models("deeper", layers=3)):
        context = Context(other, slots=1, length=LENGTH, threads=1)
        with pytest.raises(StateMismatchError, match="another model"):
            context.restore(0, state)
        context.close()
    # Where the origin is forged, llama.cpp compares the shapes.
    context = Context(models("deeper", layers=3), slots=1, length=LENGTH, threads=1)
    with pytest.raises(StateMismatchError, match="layer count"):
        context.restore(0, state._replace(origin=context.origin))
    assert generate(context, 0, context.vocabulary.tokenize(PROMPT), 0)
    context.close()


def test_a_context_of_fewer_bits_computes_and_its_states_are_its_own() -> None:
    with closing(Model(BEES, header.read(BEES))) as model:
        states = []
        for kv in CACHE_TYPES:
            with closing(Context(model, slots=2, length=LENGTH, threads=1, longest=LENGTH + 64, kv=kv)) as context:
                assert (context.length, context.pool) == (LENGTH + 64, 2 * LENGTH)
                prompt = model.tokenize("Once upon a time a bee flew over the meadow")
                expected = generate(context, 0, prompt, 0)
                states.append(context.save(0))
                context.restore(1, states[-1])
                more = [*prompt, *expected]
                assert generate(context, 1, more, len(more) - 1) == generate(context, 0, more, len(more) - 1)
                for other in states[:-1]:
                    with pytest.raises(StateMismatchError, match="another model"):
                        context.restore(1, other)
        sizes = [len(state.data) for state in states]
        assert sizes == sorted(sizes, reverse=True), "fewer bits take less"


def test_a_context_that_the_engine_does_not_keep_so_is_refused(tmp_path: Path) -> None:
    path = chain(tmp_path / "heads-of-8.gguf")
    with (
        closing(Model(path, header.read(path))) as model,
        pytest.raises(ModelLoadFailedError, match=r"in q8_0: .*block size 32 does not divide") as caught,
    ):
        Context(model, slots=1, length=LENGTH, threads=1, kv="q8_0")
    assert caught.value.details["reason"] == "kv"


def test_a_damaged_state_is_refused(context: Context) -> None:
    prompt = context.vocabulary.tokenize(PROMPT)
    expected = generate(context, 0, prompt, 0)
    state = context.save(0)
    for data in (b"", state.data[:7], state.data[:200], state.data[:-1], bytes(len(state.data)), state.data + b"x"):
        with pytest.raises(StateMismatchError):
            context.restore(0, state._replace(data=data))
        assert context.save(0).end == 0
    assert generate(context, 0, prompt, 0) == expected


def test_an_aborted_decode_is_no_complaint(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    tokens = context.vocabulary.tokenize(PROMPT)
    context.abort()
    with pytest.raises(DecodeAbortedError):
        context.decode([BatchPart(0, tokens, 0, True)])
    assert caplog.records == []
    context.clear_abort()
    context.remove(0)
    context.decode([BatchPart(0, tokens, 0, True)])


def test_of_a_recurrent_model_only_the_whole_is_copied(tmp_path: Path) -> None:
    path = make_recurrent(tmp_path / "recurrent.gguf")
    with closing(Model(path, header.read(path))) as model, closing(context_of(model)) as context:
        prompt = model.tokenize(PROMPT)
        context.decode([BatchPart(0, prompt[:-1], 0, False)])
        state = context.save(0)
        assert not context.copy(0, 1, len(prompt) - 2)
        assert context.save(1).end == 0
        assert context.copy(0, 1, len(prompt) - 1)
        expected = generate(context, 0, prompt, len(prompt) - 1)
        assert generate(context, 1, prompt, len(prompt) - 1) == expected
        assert not context.remove(1, 5)
        context.restore(1, state)
        assert generate(context, 1, prompt, len(prompt) - 1) == expected


def test_a_model_with_a_window_goes_on_from_any_token(tmp_path: Path) -> None:
    """llama.cpp keeps more than the window unless its parameter `swa_full` is cleared."""
    path = make_windowed(tmp_path / "windowed.gguf")
    with closing(Model(path, header.read(path))) as model, closing(context_of(model)) as context:
        assert model.window == WINDOW
        prompt = model.tokenize(PROMPT * 2)[: LENGTH - 20]
        expected = generate(context, 0, prompt, 0)
        for length in (1, WINDOW, len(prompt) - 1):
            assert context.copy(0, 1, length)
            assert generate(context, 1, prompt, length) == expected
        context.remove(1)
        context.restore(1, context.save(0))
        more = generate(context, 0, prompt + expected, len(prompt) + len(expected) - 1, 4)
        assert generate(context, 1, prompt + expected, len(prompt) + len(expected) - 1, 4) == more


def context_of(model: Model) -> Context:
    return Context(model, slots=2, length=LENGTH, threads=1)
