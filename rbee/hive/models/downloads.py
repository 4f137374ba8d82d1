"""Runs downloads: one task a model, shared by the callers that want it, and cancelled with the last of them."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from rbee.concurrency.changed import Changed
from rbee.concurrency.contained import contained
from rbee.concurrency.outcome import Outcome
from rbee.errors import CancelledError, DrainingError, ModelNotFoundError, RbeeError
from rbee.wire.models import ModelRow
from rbee.wire.progress import Complete, DownloadEvent, Downloading, DownloadState, Failed, Retrying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import ProgressEvent, Report

REMEMBERED_SECONDS: Final = 600.0
"""How long the last event of an ended download can be read."""


class SharedDownload:
    """One download and the callers that share it: `last` is its latest event, `outcome` how it ends."""

    def __init__(self, ref: ModelRef, sources: Sequence[Source], changed: Changed) -> None:
        self.id = str(uuid.uuid4())
        self.ref = ref
        self.sources = sources
        self.last: DownloadEvent | None = None
        self.outcome = Outcome[ModelRow]()
        self.ended_at = 0.0
        self.scope = trio.CancelScope()
        self.claims = 0
        self.is_detached = False
        self._progress = Downloading(bytes_downloaded=0, bytes_total=0, speed_mbps=0.0)
        self._changed = changed
        self._watchers: list[Report] = []

    def report(self, event: ProgressEvent) -> None:
        """Report an event to all watchers, and publish the new state."""
        if isinstance(event, DownloadEvent):
            self.last = event
            if isinstance(event, Downloading):
                self._progress = event
            self._changed.notify()
        for watcher in list(self._watchers):
            with contained("reporting a download"):
                watcher(event)

    @contextmanager
    def watched(self, report: Report) -> Iterator[None]:
        """Have `report` called with the latest event, and with each that follows within the block."""
        if self.last is not None:
            report(self.last)
        self._watchers.append(report)
        try:
            yield
        finally:
            self._watchers.remove(report)

    def state(self) -> DownloadState:
        """Return the state that followers of the hive get."""
        last, sizes = self.last, self._progress
        return DownloadState(
            download_id=self.id,
            model_ref=str(self.ref),
            stage=last.stage if last is not None else "asking",
            bytes_downloaded=sizes.bytes_downloaded,
            bytes_total=sizes.bytes_total,
            speed_mbps=sizes.speed_mbps if isinstance(last, Downloading) else 0.0,
            message=last.message if isinstance(last, Retrying | Failed) else None,
            code=last.code if isinstance(last, Failed) else None,
        )

    def settle(self, result: ModelRow | RbeeError) -> None:
        """Report how it has ended, and give everyone who waits the result."""
        self.ended_at = trio.current_time()
        if isinstance(result, RbeeError):
            self.report(Failed(code=result.code, message=result.message))
        else:
            self.report(Complete(local_path=result.local_path))
        self.outcome.settle(result)


class Downloads:
    """The downloads of this node; `fetch` brings one model, and is cancelled when no caller waits for it any more.

    The first caller of a shared download says which other nodes have the model. `changed` is notified when the state of
    a download changes.
    """

    def __init__(self, fetch: Callable[[ModelRef, Report, Sequence[Source]], Awaitable[ModelRow]]) -> None:
        self._fetch = fetch
        self._running: dict[str, SharedDownload] = {}
        self._known: dict[str, SharedDownload] = {}
        self._is_stopping = False
        self.changed = Changed()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry downloads until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def stop(self) -> None:
        """End every download, and begin none; partial files stay for the next hive."""
        self._is_stopping = True
        for download in self._running.values():
            download.scope.cancel()

    async def get(self, ref: ModelRef, report: Report, sources: Sequence[Source] = ()) -> ModelRow:
        """Return a model once it is here, sharing a download that runs, with its progress reported meanwhile.

        A caller that is cancelled gives its claim back; the last one cancels the download. Raises why it failed.
        """
        download = self._join(ref, sources)
        try:
            with download.watched(report):
                return await download.outcome.wait()
        except RbeeError as exc:
            raise _copy(exc) from None
        finally:
            self._release(download)

    def begin(self, ref: ModelRef, sources: Sequence[Source] = ()) -> SharedDownload:
        """Begin a download, or have a running one go on, though no caller waits for it."""
        download = self._join(ref, sources)
        if download.is_detached:
            self._release(download)
        download.is_detached = True
        return download

    def give_up(self, download_id: str) -> None:
        """Give back the claim of `begin`. Raises ModelNotFoundError for an unknown download."""
        download = self.known(download_id)
        if download.is_detached:
            download.is_detached = False
            self._release(download)

    def states(self) -> list[DownloadState]:
        """Return the states of the downloads, those that ended minutes ago too, the oldest first."""
        self._forget()
        return [download.state() for download in self._known.values()]

    def known(self, download_id: str) -> SharedDownload:
        """Return a download that runs or ended minutes ago. Raises ModelNotFoundError."""
        self._forget()
        if (download := self._known.get(download_id)) is None:
            raise ModelNotFoundError(
                "there is no such download; an ended one is known for ten minutes", download_id=download_id
            )
        return download

    def _join(self, ref: ModelRef, sources: Sequence[Source]) -> SharedDownload:
        if self._is_stopping:
            raise DrainingError("the hive is shutting down and fetches no models")
        self._forget()
        key = str(ref)
        if (download := self._running.get(key)) is None:
            download = self._running[key] = SharedDownload(ref, sources, self.changed)
            self._known[download.id] = download
            self.changed.notify()
            self._nursery.start_soon(self._carry, download)
        download.claims += 1
        return download

    def _release(self, download: SharedDownload) -> None:
        download.claims -= 1
        if not download.claims and not download.outcome.is_settled:
            # Later callers get a new one, which waits for the files that this one may still hold.
            self._drop(download)
            download.scope.cancel()

    def _drop(self, download: SharedDownload) -> None:
        if self._running.get(str(download.ref)) is download:
            del self._running[str(download.ref)]

    async def _carry(self, download: SharedDownload) -> None:
        result: ModelRow | RbeeError = CancelledError("the download was stopped; what came of it is kept")

        def fail(error: RbeeError) -> None:
            nonlocal result
            result = error

        try:
            # Whatever it is: other downloads, and the hive, go on.
            with contained(f"the download of {download.ref}", fail), download.scope:
                result = await self._fetch(download.ref, download.report, download.sources)
        finally:
            if download.scope.cancelled_caught and self._is_stopping:
                result = DrainingError("the hive is shutting down; the download goes on where it was")
            self._drop(download)
            download.settle(result)

    def _forget(self) -> None:
        limit = trio.current_time() - REMEMBERED_SECONDS
        self._known = {
            key: download
            for key, download in self._known.items()
            if not (download.outcome.is_settled and download.ended_at < limit)
        }


def _copy(error: RbeeError) -> RbeeError:
    """Return the error for one caller: what is added to it on its way up is not for the others."""
    copy = type(error)(error.message, hint=error.hint)
    copy.details = dict(error.details)
    return copy
