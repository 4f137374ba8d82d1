"""What llama.cpp's back-end computed of a prompt is used by the next worker of the model, from the disk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.config import CacheSettings
from rbee.concurrency.background import open_background
from rbee.wire.common import Sampling
from rbee.worker.daemon import BLOCK
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.slots import Slots
from rbee.worker.llama import header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model
from rbee.worker.prefix_store.opening import open_store
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status
from tests.kit.engine_bench import read
from tests.kit.models import make
from tests.kit.other_memories import make_recurrent, make_windowed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMPT = "There was a bee, and it had something to say about the weather. " * 4
MAKERS = {
    "attention": lambda path: make(path, random=True, layers=2),
    "windowed": make_windowed,
    "recurrent": make_recurrent,
}


async def answers(model: Model, folder: Path, *prompts: str, salt: bytes = b"") -> list[tuple[str, int]]:
    """Return what one worker answers to prompts, one after the other, and how many tokens of each were known."""
    found = []
    with closing(Context(model, slots=2, length=512, threads=1)) as context:
        settings = CacheSettings(dir=str(folder / "prefixes"))
        block = BLOCK if context.can_cut else None
        store = open_store(settings, block=block, model_key=context.origin, memory=0)
        status = Status(2)
        slots = Slots(status, WorkerMetrics(status))
        engine = Engine(context, slots.deliver, store)
        async with open_background() as background:
            background.start_soon(engine.run)
            for number, prompt in enumerate(prompts):
                tokens = model.tokenize(prompt)
                job = slots.start(engine, str(number), tokens, Sampling(temperature=0), 12, salt=salt)
                text, ended = await read(job)
                found.append((text, ended.cached))
        assert store is not None
        await trio.to_thread.run_sync(store.close)
        assert store.figures().damaged == 0
    return found


@pytest.mark.parametrize("kind", MAKERS)
async def test_the_next_worker_goes_on_where_another_has_been(tmp_path: Path, kind: str) -> None:
    maker: Callable[[Path], Path] = MAKERS[kind]
    path = maker(tmp_path / "model.gguf")
    with closing(Model(path, header.read(path))) as model:
        ((text, cached),) = await answers(model, tmp_path, PROMPT)
        assert (bool(text), cached) == (True, 0)
        known = len(model.tokenize(PROMPT))
        # The same worker later, of the same file; and one that somebody else's key asks.
        ((again, cached),) = await answers(model, tmp_path, PROMPT)
        assert again == text
        assert known - BLOCK <= cached < known
        assert await answers(model, tmp_path, PROMPT, salt=b"another") == [(text, 0)]
        # The next turn of the conversation, after which the one before is asked once more.
        turn = PROMPT + text + " And then? "
        expected = await answers(model, tmp_path / "elsewhere", turn)
        found = await answers(model, tmp_path, turn, PROMPT)
        assert [answer for answer, _ in found] == [expected[0][0], text]
        assert found[0][1] >= known - BLOCK
