"""The thread that loads a model begins without anybody who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.errors import ModelLoadFailedError
from rbee.worker import loading
from rbee.worker.llama.load_thread import LoadOptions, LoadThread
from rbee.worker.llama.model import LoadAbortedError
from tests.kit.models import make
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.wire.worker import LoadingProgress


def begun(path: Path) -> LoadThread:
    thread = LoadThread(LoadOptions(path, "cpu", 0, 1, 64, 1))
    thread.start()
    return thread


async def test_who_comes_late_gets_the_last_progress_and_the_model(tmp_path: Path) -> None:
    thread = begun(make(tmp_path / "m.gguf", layers=3))
    wait_until(lambda: thread.has_ended, "the model is loaded")
    seen: list[LoadingProgress] = []
    loaded = await loading.load(thread, seen.append)
    await trio.testing.wait_all_tasks_blocked()
    assert [(progress.layers_loaded, progress.layers_total) for progress in seen] == [(3, 3)]
    assert loaded.context.slots == 1
    loaded.close()


async def test_who_waits_sees_each_layer(tmp_path: Path) -> None:
    thread = LoadThread(LoadOptions(make(tmp_path / "m.gguf", layers=3), "cpu", 0, 1, 64, 1))
    seen: list[int | None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_load_and_close, thread, seen)
        await trio.testing.wait_all_tasks_blocked()
        thread.start()
    assert seen == [0, 1, 2, 3]


async def _load_and_close(thread: LoadThread, seen: list[int | None]) -> None:
    loaded = await loading.load(thread, lambda progress: seen.append(progress.layers_loaded))
    loaded.close()


async def test_what_is_wrong_is_told_where_the_model_is_wanted(tmp_path: Path) -> None:
    thread = begun(tmp_path / "missing.gguf")
    wait_until(lambda: thread.has_ended, "it has failed")
    with pytest.raises(ModelLoadFailedError) as caught:
        await loading.load(thread, lambda _: None)
    assert caught.value.details["reason"] == "missing"


async def test_who_goes_has_it_given_up(tmp_path: Path) -> None:
    thread = LoadThread(LoadOptions(make(tmp_path / "m.gguf", layers=3), "cpu", 0, 1, 64, 1))
    with trio.move_on_after(0.01):
        await loading.load(thread, lambda _: None)
    thread.start()
    wait_until(lambda: thread.has_ended, "it has given up")
    with pytest.raises(LoadAbortedError):
        thread.result()
