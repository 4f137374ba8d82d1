"""Waits for the thread that loads the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.worker import LoadingProgress
    from rbee.worker.llama.load_thread import LoadedModel, LoadThread


async def load(thread: LoadThread, report: Callable[[LoadingProgress], None]) -> LoadedModel:
    """Return the model once it is loaded; `report` gets the progress. Raises ModelLoadFailedError.

    Cancelling returns at once, and has the thread give up when it can: a process that does not wait for that has to end
    without it (os._exit).
    """
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    thread.listen(
        lambda progress: token.run_sync_soon(report, progress),
        lambda: token.run_sync_soon(ended.set),
    )
    try:
        await ended.wait()
    finally:
        thread.abort()
        thread.listen(lambda _: None, lambda: None)  # trio may be gone when it ends
    return thread.result()
