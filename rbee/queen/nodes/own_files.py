"""Brings a user's own model file from the queen's host to a node that is to run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from rbee.clients.local_model import LocalModel
from rbee.clients.upload import Upload
from rbee.errors import InvalidRequestError
from rbee.wire.model_copy import FileStat
from rbee.wire.model_push import part_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.clients.hive import HiveClient
    from rbee.wire.model_copy import Offers
    from rbee.wire.progress import Report

_SCHEME: Final = "file:"


def is_own_file(reference: str) -> bool:
    """Whether a reference is the path of a user's file."""
    return reference.startswith(_SCHEME)


async def stat(reference: str) -> FileStat | None:
    """Return what is at the path of a `file:` reference on the queen's host; None where no file is."""
    return await trio.to_thread.run_sync(_stat, reference.removeprefix(_SCHEME), abandon_on_cancel=True)


async def bring(
    reference: str, node: str, hive: HiveClient, offers: Offers, delays: Sequence[float], report: Report
) -> bool:
    """Bring the file of the queen's host to a node whose hive has said what it has; returns whether that is settled.

    A file that the node has at the path itself is left alone; a copy that was sent there is replaced when the file has
    changed since. Raises why it could not be sent.
    """
    if (here := await stat(reference)) is None:
        return False
    is_copy = any(model.is_meant for model in offers.models)
    if offers.file == here or (offers.file is not None and not is_copy):
        return True
    try:
        model = await trio.to_thread.run_sync(LocalModel.find, reference)
        await Upload(hive.receiver(), model, node, delays, report, "queen-rbee").run()
    except InvalidRequestError:
        return False  # it is no model, or the node's rbee is older and takes no files: the node says what it lacks
    return True


def _stat(path: str) -> FileStat | None:
    try:
        first = Path(path)
        found = [first.with_name(name).stat() for name in part_names(first.name)]
    except (OSError, ValueError):
        return None
    return FileStat(size_bytes=sum(one.st_size for one in found), modified_ns=max(one.st_mtime_ns for one in found))
