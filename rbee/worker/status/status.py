"""What the worker reports of itself, and a way to wait for the next change."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from rbee.concurrency.changed import Changed
from rbee.concurrency.recent import Recent
from rbee.errors import DrainingError, RbeeError, WorkerNotReadyError
from rbee.wire.error_body import to_body
from rbee.wire.worker import WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trio

    from rbee.wire.worker import EndedRequest, LoadingProgress

MAX_ENDED: Final = 200
State = Literal["loading", "idle", "busy", "draining", "failed"]


class Snapshot(NamedTuple):
    """The worker at one moment."""

    slots_total: int
    slots_busy: int = 0
    """Slots that no request would get; jobs with silent readers run in others, or in none."""
    running: int = 0
    """Jobs that have not ended."""
    loading: LoadingProgress | None = None
    is_loaded: bool = False
    is_draining: bool = False
    is_closed: bool = False
    followers: int = 0
    """Readers of the event stream."""
    error: RbeeError | None = None
    keep: float | None = None
    """Seconds without a request that it is to stay, as the last request that said so wants it."""

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
    def is_ready(self) -> bool:
        """Whether requests are served."""
        return self.state in ("idle", "busy")

    @property
    def is_orphaned(self) -> bool:
        """Whether nobody would miss the worker."""
        return self.followers == 0 and self.running == 0

    def on_wire(self) -> WorkerStatus:
        """Return what `/v1/events` says."""
        return WorkerStatus(
            state=self.state,
            slots_total=self.slots_total,
            slots_available=self.slots_total - self.slots_busy if self.is_ready else 0,
            layers_loaded=self.loading.layers_loaded if self.loading else 0,
            layers_total=self.loading.layers_total if self.loading else 0,
            error=None if self.error is None else to_body(self.error)["error"],
            keep_s=self.keep,
        )

    def refusal(self) -> RbeeError:
        if self.error is not None:
            return self.error
        if self.is_draining:
            return DrainingError("the worker is shutting down")
        wire = self.on_wire()
        return WorkerNotReadyError(
            "the model is still loading", layers_loaded=wire.layers_loaded, layers_total=wire.layers_total
        )


class Status:
    """The worker's state, changed in trio's thread only, by the methods of this class only.

    A watcher takes `changed` before it reads `now`, and waits for it afterwards; so it misses nothing that lasts, and a
    slow one skips what is past.
    """

    def __init__(self, slots: int) -> None:
        self._now = Snapshot(slots)
        self._changed = Changed()
        self.ended: Recent[EndedRequest] = Recent(MAX_ENDED)
        """The last requests that ended."""

    def __repr__(self) -> str:
        return f"<Status {self._now.state} {self._now.slots_busy}/{self._now.slots_total}>"

    @property
    def now(self) -> Snapshot:
        """The state, as it is now; what is returned does not change."""
        return self._now

    @property
    def changed(self) -> trio.Event:
        """The event that the next change sets."""
        return self._changed.next

    def check_ready(self) -> None:
        """Raise the error of a request that cannot be served now."""
        if not self._now.is_ready:
            raise self._now.refusal()

    def set_loading(self, progress: LoadingProgress) -> None:
        if progress != self._now.loading:
            self._change(loading=progress)

    def set_loaded(self) -> None:
        self._change(is_loaded=True)

    def set_failed(self, error: RbeeError) -> None:
        self._change(error=error)

    def set_busy(self, slots: int, running: int) -> None:
        self._change(slots_busy=slots, running=running)

    def set_keep(self, seconds: float) -> None:
        self._change(keep=seconds)

    def add_ended(self, request: EndedRequest) -> None:
        """A request has ended, or was refused."""
        self.ended.add(request)
        self._changed.notify()

    def set_draining(self) -> None:
        self._change(is_draining=True)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Count a follower of the event stream for as long as the block runs."""
        self._change(followers=self._now.followers + 1)
        try:
            yield
        finally:
            self._change(followers=self._now.followers - 1)

    def close(self) -> None:
        """Publish the last change: watchers end."""
        self._change(is_closed=True)

    def _change(self, **fields: Any) -> None:
        self._now = self._now._replace(**fields)
        self._changed.notify()

    async def wait_idle(self) -> None:
        await self.wait_until(lambda now: not now.running)

    async def wait_until(self, condition: Callable[[Snapshot], bool]) -> None:
        """Return once `condition` holds; it is checked after each change."""
        while not condition(self._now):
            await self._changed.next.wait()
