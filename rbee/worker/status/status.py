"""What the worker says about itself, and a way to wait for the next change."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import trio

from rbee.errors import DrainingError, RbeeError, WorkerNotReadyError, to_body
from rbee.wire.worker import WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rbee.wire.worker import LoadingProgress

State = Literal["loading", "idle", "busy", "draining", "failed"]


class Status:
    """The worker's state, changed in trio's thread only.

    A watcher takes `changed` before it looks and waits for it afterwards; so it misses nothing that lasts, and a slow
    one skips what is past.
    """

    def __init__(self, slots: int) -> None:
        self.slots_total = slots
        self.slots_busy = 0
        self.running = 0
        self.loading: LoadingProgress | None = None
        self.is_loaded = False
        self.is_draining = False
        self.is_closed = False
        self.followers = 0
        self.error: RbeeError | None = None
        self.changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Status {self.state} {self.slots_busy}/{self.slots_total}>"

    @property
    def state(self) -> State:
        if self.error is not None:
            return "failed"
        if self.is_draining:
            return "draining"
        if not self.is_loaded:
            return "loading"
        return "busy" if self.slots_busy else "idle"

    @property
    def is_orphaned(self) -> bool:
        """Whether nobody would miss the worker now."""
        return self.followers == 0 and self.running == 0

    def snapshot(self) -> WorkerStatus:
        """Return what `/v1/events` tells."""
        state = self.state
        return WorkerStatus(
            state=state,
            slots_total=self.slots_total,
            slots_available=self.slots_total - self.slots_busy if state in ("idle", "busy") else 0,
            layers_loaded=self.loading.layers_loaded if self.loading else 0,
            layers_total=self.loading.layers_total if self.loading else 0,
            error=None if self.error is None else to_body(self.error)["error"],
        )

    def check_ready(self) -> None:
        """Raise the error that a request gets now, if it cannot be served."""
        if self.error is not None:
            raise self.error
        if self.is_draining:
            raise DrainingError("the worker is shutting down")
        if not self.is_loaded:
            now = self.snapshot()
            raise WorkerNotReadyError(
                "the model is still loading", layers_loaded=now.layers_loaded, layers_total=now.layers_total
            )

    def set_loading(self, progress: LoadingProgress) -> None:
        if progress != self.loading:
            self.loading = progress
            self._tell()

    def set_loaded(self) -> None:
        self.is_loaded = True
        self._tell()

    def set_failed(self, error: RbeeError) -> None:
        self.error = error
        self._tell()

    def set_busy(self, slots: int, running: int) -> None:
        """`slots` are those that no request would get now; generations with silent readers run in others, or none."""
        self.slots_busy, self.running = slots, running
        self._tell()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Count a follower of the event stream for as long as the block runs."""
        self.followers += 1
        self._tell()
        try:
            yield
        finally:
            self.followers -= 1
            self._tell()

    def set_draining(self) -> None:
        self.is_draining = True
        self._tell()

    def close(self) -> None:
        """Say the last word: watchers end."""
        self.is_closed = True
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait_idle(self) -> None:
        """Return once no generation runs."""
        await self.wait_until(lambda: not self.running)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is looked at after each change."""
        while not condition():
            await self.changed.wait()
