"""Sends a model to a node in pieces: what has come there is not sent again."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec
import trio

from rbee.adapters.files import sha256 as hashing
from rbee.errors import (
    ConnectionTimeoutError,
    DownloadFailedError,
    InternalError,
    ModelInUseError,
    ModelNotFoundError,
    StorageError,
)
from rbee.wire.common import Narration
from rbee.wire.model_push import PIECE_BYTES, PushRequest
from rbee.wire.progress import Progress, Retrying, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rbee.clients.local_model import LocalModel
    from rbee.wire.model_push import MissingFile, PushedFile, PushState, Received
    from rbee.wire.progress import Report


MOST_TIMES: Final = 3
"""How often all of a model may be sent, where the node loses it: as by a wrong hash, another sender, a full disk."""


class Receiver(Protocol):
    """Takes what is sent to one node: its hive, or the queen for it."""

    async def announce(self, request: PushRequest, report: Report) -> PushState:
        """Say what is missing of a model."""
        ...

    async def send(self, sha256: str, offset: int, data: bytes) -> Received:
        """Take a piece of a file that was announced."""
        ...


class Upload:
    """One model on its way to `node`; `delays` are the seconds before each further attempt that brings nothing.

    `actor` is the role that sends it.
    """

    def __init__(
        self,
        receiver: Receiver,
        model: LocalModel,
        node: str,
        delays: Sequence[float],
        report: Report,
        actor: Literal["rbee-keeper", "queen-rbee"],
    ) -> None:
        self._receiver = receiver
        self._model = model
        self._node = node
        self._actor = actor
        self._delays = delays
        self._report = report
        self._paths = dict(zip((file.name for file in model.files), model.paths, strict=True))
        self._sizes = {file.name: file.size_bytes for file in model.files}
        self._begun: tuple[float, int] | None = None
        self._sent = 0

    async def run(self) -> PushState:
        """Return what has become of the model, once it is whole on the node and has the right hash.

        The node is asked first whether it has the room. Raises why it could not be sent.
        """
        state = await self._receiver.announce(self._request(self._model.files), self._report)
        if not state.missing:
            return state
        request = self._request([await self._hashed(file) for file in self._model.files])
        failures = 0
        began = time.monotonic()
        while True:
            before = self._sent
            try:
                state = await self._receiver.announce(request, self._report)
                if not state.missing:
                    break
                await self._send(state.missing)
            except (ConnectionTimeoutError, ModelNotFoundError, ModelInUseError, DownloadFailedError) as exc:
                failures = 0 if self._sent > before else failures
                if failures == len(self._delays):
                    raise
                await self._pause(failures, exc.message)
                failures += 1
            else:
                failures = 0
        if self._sent:
            self._narrate("push_complete", f"Copied {self._name} to {self._node} in {time.monotonic() - began:.1f} s")
        return state

    @property
    def _name(self) -> str:
        return self._model.files[0].name

    def _request(self, files: Sequence[PushedFile]) -> PushRequest:
        return PushRequest(model_ref=self._model.reference, files=list(files))

    async def _pause(self, failures: int, why: str) -> None:
        delay = self._delays[failures]
        attempts = len(self._delays) + 1
        self._report(Retrying(attempt=failures + 2, attempts=attempts, delay_ms=round(delay * 1000), message=why))
        await trio.sleep(delay)

    async def _hashed(self, file: PushedFile) -> PushedFile:
        token = trio.lowlevel.current_trio_token()
        path, done = self._paths[file.name], 0

        def count() -> None:
            nonlocal done
            trio.from_thread.check_cancelled()
            done = min(done + hashing.READ_BYTES, file.size_bytes)
            if done % (16 * hashing.READ_BYTES) == 0:
                event = Progress(stage="hashing", bytes_downloaded=done, bytes_total=file.size_bytes)
                token.run_sync_soon(self._report, event)

        try:
            sha256, size = await trio.to_thread.run_sync(partial(hashing.of_file, path, count))
        except OSError as exc:
            raise StorageError(f"{path} cannot be read: {exc.strerror}") from exc
        if size != file.size_bytes:
            raise _changed(path)
        return msgspec.structs.replace(file, sha256=sha256)

    async def _send(self, missing: Sequence[MissingFile]) -> None:
        """Send the rest of the first file that is missing."""
        first, offset = missing[0], missing[0].offset
        assert first.sha256 is not None
        total = sum(self._sizes.values())
        done_before = total - sum(self._sizes[file.name] - file.offset for file in missing) - offset
        if self._begun is None:
            self._begun = time.monotonic(), done_before + offset
            rest = f", {100 * (done_before + offset) // total} % of it is there" if done_before + offset else ""
            self._narrate("push", f"Copying {self._name} ({size(total)}) to {self._node}{rest}")
        path = self._paths[first.name]
        while offset < self._sizes[first.name]:
            data = await trio.to_thread.run_sync(_read, path, offset, PIECE_BYTES)
            received = await self._receiver.send(first.sha256, offset, data)
            if received.offset <= offset:
                # What was there is gone: to be announced again, but not for ever.
                raise DownloadFailedError(f"{self._node} has not taken a piece of {path.name}", hint="push it again")
            self._sent += received.offset - offset
            if self._sent > MOST_TIMES * total:
                raise InternalError(f"{self._node} does not keep what it has taken of {path.name}")
            offset = received.offset
            self._show(done_before + offset, total)

    def _show(self, done: int, total: int) -> None:
        assert self._begun is not None
        since, there = self._begun
        speed = (done - there) / max(time.monotonic() - since, 1e-3) / 1e6
        self._report(Progress(stage="copying", bytes_downloaded=done, bytes_total=total, speed_mbps=speed))

    def _narrate(self, action: str, human: str) -> None:
        self._report(Narration(actor=self._actor, action=action, target=self._node, human=human))


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), count, offset)
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc.strerror}") from exc
    if not data:
        raise _changed(path)
    return data


def _changed(path: Path) -> StorageError:
    return StorageError(f"{path} was changed while it was read", hint="push it again once it is whole")
