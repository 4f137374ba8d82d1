"""Waits until a worker has loaded its model, and reports how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from rbee.adapters.http import sse_client
from rbee.concurrency.background import open_background
from rbee.errors import (
    ConnectionTimeoutError,
    DrainingError,
    LoadingTimeoutError,
    ModelLoadFailedError,
    RbeeError,
    WorkerFailedError,
)
from rbee.wire.common import Narration
from rbee.wire.error_body import from_body
from rbee.wire.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.config import Timeouts
    from rbee.clients.worker import WorkerClient
    from rbee.wire.progress import Report


ENDED: Final = "the worker ended while it loaded its model"


class WorkerUnreachedError(WorkerFailedError):
    """No attempt has reached the worker: it ended before, as its node may know, or something is in between."""


class _Loading:
    """The last known state of a model that loads."""

    def __init__(self) -> None:
        self.state = "loading"
        self.since: float | None = None
        self.progress: Progress | None = None
        self.ended = trio.Event()
        self.draining: DrainingError | None = None

    @property
    def layers(self) -> tuple[int, int] | None:
        """Layers loaded, and all of them."""
        return None if self.progress is None else (self.progress.layers_loaded, self.progress.layers_total)


async def wait_ready(
    worker: WorkerClient,
    report: Report,
    limits: Timeouts,
    *,
    end_progress: Callable[[], None] = lambda: None,
    log: str | None = None,
    grace: float = 0.0,
) -> None:
    """Return once the worker can take a request; `end_progress` is called where no more of its loading is reported.

    Raises the error with which loading failed, LoadingTimeoutError after the limit of loading and `grace` more seconds,
    DrainingError when the worker was asked to end, or WorkerFailedError when it has gone; `log` names its log then.
    """
    loading = _Loading()
    hint = None if log is None else f"look at the worker's log: {log}"
    failure: RbeeError | None = None
    try:
        with trio.move_on_after(limits.loading + grace) as patience:
            async with open_background() as nursery:
                await _poll(worker, report, end_progress, limits, loading, nursery)
    except ConnectionTimeoutError as exc:
        failure = loading.draining
        if failure is None and loading.since is None:
            failure = WorkerUnreachedError(f"the worker cannot be reached from here: {_why(exc)}", hint=hint)
        failure = failure or WorkerFailedError(ENDED, hint=hint)
    except RbeeError as exc:
        failure = exc
    finally:
        end_progress()
    if failure is not None:
        if hint is not None:
            failure.hint = f"{failure.hint}; {hint}" if failure.hint and failure.hint != hint else hint
        raise failure
    if patience.cancelled_caught:
        error = LoadingTimeoutError.after(limits.loading, loading.state, loading.layers)
        error.hint = hint
        raise error


def _why(exc: ConnectionTimeoutError) -> str:
    attempts = exc.details.get("attempts")
    return f"{exc.message} ({str(attempts[-1]).partition(': ')[2]})" if attempts else exc.message


async def _poll(
    worker: WorkerClient,
    report: Report,
    end_progress: Callable[[], None],
    limits: Timeouts,
    loading: _Loading,
    nursery: trio.Nursery,
) -> None:
    """Ask until the worker is ready; its progress stream is followed beside."""
    pause, follows = limits.ready_poll, False
    while True:
        answer = await worker.ready()
        if answer.ready:
            end_progress()
            if loading.since is not None:
                report(_loaded(loading, trio.current_time() - loading.since))
            return
        loading.since = loading.since or trio.current_time()
        if answer.state == "failed":
            error = from_body({"error": answer.error})
            raise error or ModelLoadFailedError("the worker could not load the model")
        if answer.state == "draining":
            raise DrainingError("the worker is shutting down")
        loading.state = answer.state
        if not follows and answer.progress_url is not None:
            follows = True
            # The path alone: a worker may be reached by another way than it knows, and another host would get the key.
            nursery.start_soon(_follow, worker, urlsplit(answer.progress_url).path, report, end_progress, loading)
        if loading.ended.is_set():
            await trio.sleep(pause)
        else:
            # The end of the progress stream is a reason to ask at once.
            with trio.move_on_after(pause):
                await loading.ended.wait()
            if loading.progress is not None and not loading.ended.is_set():
                # Once more, in case it came too early for a bar and nothing has moved since.
                report(loading.progress)
        pause = min(pause * 2, limits.ready_poll_most)


def _loaded(loading: _Loading, seconds: float) -> Narration:
    size = ""
    if loading.progress is not None:
        size = f" {loading.progress.vram_mb:.0f} MB, {loading.progress.layers_total} layers,"
    return Narration(
        actor="model-loader", action="loaded", target="model", human=f"Loaded the model:{size} in {seconds:.1f} s"
    )


async def _follow(
    worker: WorkerClient, path: str, report: Report, end_progress: Callable[[], None], loading: _Loading
) -> None:
    """Show the progress of the loading. A lost stream means nothing: the polling decides.

    A worker that was asked to end says so here, and may be gone before the next poll.
    """
    try:
        async with worker.loading(path) as events:
            async for event in events:
                progress = sse_client.decode_event(event.data, Progress)
                if progress.stage == "ready":
                    break
                loading.progress = progress
                report(progress)
    except DrainingError as exc:
        loading.draining = exc
    except (RbeeError, sse_client.StreamLostError):
        pass
    end_progress()
    loading.ended.set()
