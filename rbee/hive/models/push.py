"""Takes in models that users send to this node: checks the room, appends the pieces, compares the hashes."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from rbee.adapters.download import fetch
from rbee.adapters.files import full_disk
from rbee.adapters.files import sha256 as hashing
from rbee.adapters.hardware import inventory
from rbee.concurrency.keyed_locks import KeyedLocks
from rbee.errors import (
    InvalidRequestError,
    ModelInUseError,
    ModelLoadFailedError,
    ModelNotFoundError,
)
from rbee.hive.catalogue import folder
from rbee.hive.models.incoming_file import IncomingFile, size_of
from rbee.wire import model_ref
from rbee.wire.hub import HubFile
from rbee.wire.model_push import MissingFile, PushState, Received, part_names
from rbee.wire.progress import Verifying

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.hive.catalogue.catalogue import Catalogue
    from rbee.wire.model_push import PushedFile, PushRequest
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import Report

T = TypeVar("T")
log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60.0
"""Without a piece, after which a file is closed; what came of it stays, and the next piece opens it again."""
BUSY_SECONDS: Final = 1.0
"""Without a piece, after which another version of the file may be sent in its place: its user has begun anew."""


class PushedModels:
    """The models that are being sent to this node, while `run` runs."""

    def __init__(self, models_dir: Path, catalogue: Catalogue, limiter: trio.CapacityLimiter) -> None:
        self._models_dir = models_dir
        self._catalogue = catalogue
        self._limiter = limiter
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._open: dict[str, IncomingFile] = {}
        self._verified: set[tuple[Path, str]] = set()
        """Partial files that are whole and have the right hash; they get their names once all of the model are."""

    async def run(self) -> None:
        """Close files that nobody sends any more, until cancelled."""
        while True:
            await trio.sleep(IDLE_SECONDS / 2)
            limit = trio.current_time() - IDLE_SECONDS
            for incoming in [one for one in self._open.values() if one.used_at < limit]:
                self._close_if_idle(incoming)

    async def state(self, request: PushRequest, report: Report) -> PushState:
        """Say what is missing of a model; one of which nothing is becomes a model of the catalogue.

        Raises InvalidRequestError, InsufficientDiskError, ChecksumMismatchError, ModelInUseError or StorageError.
        """
        ref = _checked(request)
        if await self._in_thread(partial(_is_this_very_file, ref, request.files)):
            return PushState(missing=[], local_path=ref.reference)
        try:
            async with self._locks.hold(ref.reference):  # a second one would install what the first has installed
                return await self._state(ref, request.files, report)
        except OSError as exc:
            raise full_disk.refused(f"{request.files[0].name} cannot be written", exc) from exc

    async def _state(self, ref: ModelRef, files: Sequence[PushedFile], report: Report) -> PushState:
        first = folder.pushed(self._models_dir, ref)
        incoming_files = [IncomingFile(first.with_name(one.name), one, is_first=one is files[0]) for one in files]
        listed = [HubFile(file.name, file.size_bytes, file.sha256) for file in files]
        is_named = all(file.sha256 is not None for file in files)
        if is_named and (row := await self._catalogue.of_files(ref, first, listed)) is not None:
            for incoming in incoming_files:
                await self._in_thread(incoming.set_time)
            return PushState(missing=[], model=row)
        known = await self._catalogue.hashes_at(first)
        missing, whole = [], []
        for incoming in incoming_files:
            if await self._is_there(incoming, known.get(incoming.to.name), report):
                continue
            offset = await self._in_thread(incoming.left)
            # Of a file without a hash it is not known whether what is there is of it, however much that is.
            if offset < incoming.file.size_bytes or not is_named:
                missing.append((incoming, offset))
            else:
                await self._verify(incoming, report)
                whole.append(incoming)
        needed = sum(incoming.file.size_bytes - offset for incoming, offset in missing)
        if needed > (available := inventory.disk(first.parent).available):
            raise fetch.too_little(needed, available, files[0].name)
        if missing:
            if is_named:
                await self._begin(missing[0][0])
            return PushState(
                missing=[
                    MissingFile(name=incoming.to.name, sha256=incoming.file.sha256, offset=offset)
                    for incoming, offset in missing
                ]
            )
        for incoming in whole:
            await self._in_thread(incoming.install)
            self._verified.discard(incoming.key)
        row = await self._catalogue.add(ref, "", first, listed)
        log.info("%s was sent here: %s, %d bytes", ref, row.id, row.size_bytes)
        return PushState(missing=[], model=row)

    async def _is_there(self, incoming: IncomingFile, known: str | None, report: Report) -> bool:
        """Whether a file has its name already, as one of a split model that a hive was about to install."""
        if (
            incoming.file.sha256 is None
            or await self._in_thread(partial(size_of, incoming.to)) != incoming.file.size_bytes
        ):
            return False
        if known is None:
            report(Verifying())
            work = partial(hashing.of_file, incoming.to, trio.from_thread.check_cancelled)
            known, _ = await self._in_thread(work)
        return known == incoming.file.sha256

    async def _begin(self, incoming: IncomingFile) -> IncomingFile:
        """Open a file for its next pieces, unless it is open."""
        if incoming.sha256 not in self._open:
            limit = trio.current_time() - BUSY_SECONDS
            for other in [one for one in self._open.values() if one.to == incoming.to and one.used_at < limit]:
                self._close_if_idle(other)
            self._verified = {key for key in self._verified if key[0] != incoming.to}
            await self._in_thread(incoming.open)
            if self._open.setdefault(incoming.sha256, incoming) is not incoming:
                incoming.part.__exit__()  # the same file was announced by another path meanwhile
        found = self._open[incoming.sha256]
        if found.to != incoming.to:
            raise ModelInUseError(
                f"the same file is being sent here as {found.to.name} already", hint="wait for that push to end"
            )
        found.used_at = trio.current_time()
        return found

    async def _verify(self, incoming: IncomingFile, report: Report) -> None:
        """Compare a file of which every byte has come, once."""
        if incoming.key in self._verified:
            return
        report(Verifying())
        incoming = await self._begin(incoming)
        async with incoming.lock:
            try:
                await self._in_thread(incoming.verify)
                self._verified.add(incoming.key)
            finally:
                self._close(incoming)

    async def append(self, sha256: str, offset: int, data: bytes) -> Received:
        """Append a piece of a file that was announced. Raises ModelNotFoundError for any other, or StorageError."""
        if (incoming := self._open.get(sha256)) is not None:
            async with incoming.lock:
                if self._open.get(sha256) is incoming:
                    incoming.used_at = trio.current_time()
                    return await self._append(incoming, offset, data)
        raise ModelNotFoundError("no file of this hash is being sent", hint="announce it again")

    async def _append(self, incoming: IncomingFile, offset: int, data: bytes) -> Received:
        try:
            return Received(offset=await self._in_thread(partial(incoming.append, offset, data)))
        except (InvalidRequestError, ModelLoadFailedError):
            self._close(incoming)
            raise
        except OSError as exc:
            if full_disk.is_full(exc):
                raise fetch.too_little(len(data), 0, incoming.to.name) from exc
            raise full_disk.refused(f"{incoming.to.name} cannot be written", exc) from exc

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run what waits for the disk; it is not left half-way, as the file stays open."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def _close_if_idle(self, incoming: IncomingFile) -> None:
        if not incoming.lock.locked():
            self._close(incoming)

    def _close(self, incoming: IncomingFile) -> None:
        if self._open.pop(incoming.sha256, None) is not None:
            incoming.part.__exit__()


def _checked(request: PushRequest) -> ModelRef:
    """Return the reference of a pushed model. Raises InvalidRequestError for what can be none."""
    ref = model_ref.parse(request.model_ref)
    names = [file.name for file in request.files]
    try:
        is_model = ref.provider == "file" and names == part_names(Path(ref.reference).name)
    except ValueError:
        is_model = False
    if not is_model:
        raise InvalidRequestError(
            "what is pushed is a model file, or all files of a split model in order", field="files", rule="all files"
        )
    return ref


def _is_this_very_file(ref: ModelRef, files: Sequence[PushedFile]) -> bool:
    """Whether the files are at the same path here: it is the user's own machine, or a disk that both share."""
    path = Path(ref.reference)
    try:
        found = [path.with_name(file.name).stat() for file in files]
    except OSError:
        return False
    return [(one.st_size, one.st_mtime_ns) for one in found] == [(file.size_bytes, file.modified_ns) for file in files]
