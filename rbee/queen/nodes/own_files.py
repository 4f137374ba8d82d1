"""Brings a user's own model file from the queen's host to a node that is to run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from rbee.clients.local_model import LocalModel
from rbee.clients.upload import Upload
from rbee.concurrency.keyed_locks import KeyedLocks
from rbee.errors import InvalidRequestError
from rbee.queen.hives.link import narrate
from rbee.wire.model_copy import FileStat
from rbee.wire.model_push import part_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.clients.hive import HiveClient
    from rbee.wire.progress import Report

_SCHEME: Final = "file:"


def is_own_file(reference: str) -> bool:
    """Whether a reference is the path of a user's file."""
    return reference.startswith(_SCHEME)


async def stat(reference: str) -> FileStat | None:
    """Return what is at the path of a `file:` reference on the queen's host; None where no file is."""
    return await trio.to_thread.run_sync(_stat, reference.removeprefix(_SCHEME), abandon_on_cancel=True)


class OwnFiles:
    """Brings files of the queen's host to nodes, each once however many requests need it."""

    def __init__(self, delays: Sequence[float]) -> None:
        self._delays = delays
        self._locks: KeyedLocks[tuple[str, str]] = KeyedLocks()

    async def bring(self, reference: str, node: str, hive: HiveClient, report: Report) -> bool:
        """Bring a file to a node; returns whether that is settled.

        A file that the node has at the path itself is left alone; a copy that was sent there is replaced when the file
        has changed since. Raises why it could not be sent.
        """
        if await stat(reference) is None:
            return False
        if self._locks.is_held((node, reference)):
            narrate(report, node, "wait", f"Waiting for another request that copies the model to {node}")
        async with self._locks.hold((node, reference)):
            # Within: the request before may have brought it.
            here, offers = await stat(reference), await hive.offers(reference)
            is_copy = any(model.is_meant for model in offers.models)
            if offers.file == here or (offers.file is not None and not is_copy):
                return True
            try:
                model = await trio.to_thread.run_sync(LocalModel.find, reference)
                await Upload(hive.receiver(), model, node, self._delays, report, "queen-rbee").run()
            except InvalidRequestError:
                # It is no model, or the node's rbee is older and takes no files: the node says what it lacks.
                return False
        return True


def _stat(path: str) -> FileStat | None:
    try:
        first = Path(path)
        found = [first.with_name(name).stat() for name in part_names(first.name)]
    except (OSError, ValueError):
        return None
    return FileStat(size_bytes=sum(one.st_size for one in found), modified_ns=max(one.st_mtime_ns for one in found))
