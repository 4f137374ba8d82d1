"""Runs downloads: one task for each model, shared by all who ask for it, and ended with the last of them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from rbee.errors import CancelledError, DrainingError, InternalError, ModelNotFoundError, RbeeError
from rbee.wire.common import Narration
from rbee.wire.download import Complete, DownloadEvent, Downloading, DownloadState, Failed, Retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.models import ModelRow
    from rbee.wire.progress import ProgressEvent, Report


REMEMBERED: Final = 600.0
"""Seconds for which the last event of an ended download can still be asked for."""

T = TypeVar("T")


class Download:
    """One download: `last` is its latest event, `done` is set when it has ended."""

    def __init__(self, ref: ModelRef, sources: Sequence[Source], changed: Callable[[], None]) -> None:
        self.id = str(uuid.uuid4())
        self.ref = ref
        self.sources = sources
        self.last: ProgressEvent | None = None
        self._progress = Downloading(bytes_downloaded=0, bytes_total=0, speed_mbps=0.0)
        self._changed = changed
        self.done = trio.Event()
        self.ended_at = 0.0
        self.result: ModelRow | RbeeError = InternalError("the download has not ended")
        self.scope = trio.CancelScope()
        self.claims = 0
        self.is_detached = False
        self._watchers: list[Report] = []

    def report(self, event: ProgressEvent) -> None:
        """Pass an event on to all who watch."""
        if not isinstance(event, Narration):
            self.last = event
            if isinstance(event, Downloading):
                self._progress = event
            self._changed()
        for watcher in list(self._watchers):
            watcher(event)

    def watch(self, report: Report) -> None:
        """Have `tell` called with what the last event was, and with each that follows."""
        if self.last is not None:
            report(self.last)
        self._watchers.append(report)

    def state(self) -> DownloadState:
        """Return how it stands."""
        last, sizes = self.last, self._progress
        return DownloadState(
            download_id=self.id,
            model_ref=str(self.ref),
            stage=last.stage if isinstance(last, DownloadEvent) else "asking",
            bytes_downloaded=sizes.bytes_downloaded,
            bytes_total=sizes.bytes_total,
            speed_mbps=sizes.speed_mbps if isinstance(last, Downloading) else 0.0,
            message=last.message if isinstance(last, Retrying | Failed) else None,
            code=last.code if isinstance(last, Failed) else None,
        )

    def unwatch(self, report: Report) -> None:
        """Call `tell` no more."""
        self._watchers.remove(report)

    def settle(self, result: ModelRow | RbeeError) -> None:
        """Tell how it has ended."""
        self.result = result
        self.ended_at = trio.current_time()
        if isinstance(result, RbeeError):
            self.report(Failed(code=result.code, message=result.message))
        else:
            self.report(Complete(local_path=result.local_path))
        self.done.set()


class Downloads:
    """The downloads of this node; `fetch` brings one model, and is cancelled when nobody wants it any more.

    Of those who share one, the first says which other nodes have the model.
    """

    def __init__(self, fetch: Callable[[ModelRef, Report, Sequence[Source]], Awaitable[ModelRow]]) -> None:
        self._fetch = fetch
        self._running: dict[str, Download] = {}
        self._known: dict[str, Download] = {}
        self._is_stopping = False
        self.changed = trio.Event()
        """Set and replaced with each change; who takes it before looking misses nothing that lasts."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry downloads until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def stop(self) -> None:
        """End every download, and begin none; what has come of each stays for the next hive."""
        self._is_stopping = True
        for download in self._running.values():
            download.scope.cancel()

    async def get(self, ref: ModelRef, report: Report, sources: Sequence[Source] = ()) -> ModelRow:
        """Return a model once it is here, sharing a download that runs; what that tells is told meanwhile.

        A caller that is cancelled takes its claim back: the last one ends the download. Raises why it failed.
        """
        download = self._join(ref, sources)
        download.watch(report)
        try:
            await download.done.wait()
        finally:
            download.unwatch(report)
            self._release(download)
        if isinstance(download.result, RbeeError):
            raise _again(download.result)
        return download.result

    def begin(self, ref: ModelRef, sources: Sequence[Source] = ()) -> Download:
        """Begin a download that goes on for nobody, or make one that runs do so."""
        download = self._join(ref, sources)
        if download.is_detached:
            self._release(download)
        download.is_detached = True
        return download

    def give_up(self, download_id: str) -> None:
        """Take back the claim of `begin`. Raises ModelNotFoundError for an unknown download."""
        download = self.known(download_id)
        if download.is_detached:
            download.is_detached = False
            self._release(download)

    def states(self) -> list[DownloadState]:
        """Return how the downloads stand, those that ended minutes ago too, the oldest first."""
        self._forget()
        return [download.state() for download in self._known.values()]

    def known(self, download_id: str) -> Download:
        """Return a download that runs, or ended minutes ago. Raises ModelNotFoundError."""
        self._forget()
        if (found := self._known.get(download_id)) is None:
            raise ModelNotFoundError(
                "there is no such download; an ended one is known for ten minutes", download_id=download_id
            )
        return found

    def _join(self, ref: ModelRef, sources: Sequence[Source]) -> Download:
        if self._is_stopping:
            raise DrainingError("the hive is shutting down and fetches no models")
        self._forget()
        key = str(ref)
        if (download := self._running.get(key)) is None:
            download = self._running[key] = Download(ref, sources, self._tell_change)
            self._known[download.id] = download
            self._tell_change()
            self._nursery.start_soon(self._carry, download)
        download.claims += 1
        return download

    def _release(self, download: Download) -> None:
        download.claims -= 1
        if not download.claims and not download.done.is_set():
            # Who asks from now on gets a new one, which waits for the files that this one may still hold.
            self._drop(download)
            download.scope.cancel()

    def _tell_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _drop(self, download: Download) -> None:
        if self._running.get(str(download.ref)) is download:
            del self._running[str(download.ref)]

    async def _carry(self, download: Download) -> None:
        result: ModelRow | RbeeError = CancelledError("the download was stopped; what came of it is kept")
        try:
            with download.scope:
                result = await self._fetch(download.ref, download.report, download.sources)
        except RbeeError as exc:
            result = exc
        finally:
            if download.scope.cancelled_caught and self._is_stopping:
                result = DrainingError("the hive is shutting down; the download goes on where it was")
            self._drop(download)
            download.settle(result)

    def _forget(self) -> None:
        limit = trio.current_time() - REMEMBERED
        self._known = {
            key: download
            for key, download in self._known.items()
            if not (download.done.is_set() and download.ended_at < limit)
        }


def _again(error: RbeeError) -> RbeeError:
    """Return the error for one more who waited: what is added to it on its way is not for the others."""
    copy = type(error)(error.message, hint=error.hint)
    copy.details = dict(error.details)
    return copy
