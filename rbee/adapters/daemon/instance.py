"""Holds the one place of a daemon role in a state folder, and says who holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from rbee.adapters.daemon import process
from rbee.adapters.files import full_disk, private
from rbee.errors import AlreadyRunningError

if TYPE_CHECKING:
    from pathlib import Path


PADDED: Final = 512
"""Bytes that a description fills, so that the next one fits into the same place."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Instance(msgspec.Struct):
    """A daemon: which process, where it listens, whether it ends with its parent, and who started it.

    `id` is that of its place. `has_left` tells that it has ended, and what it had started with it; one that was killed
    did not get to say so.
    """

    identity: process.Identity
    url: str
    version: str
    ephemeral: bool
    started_by: Literal["user", "queen"] = "user"
    id: str = ""
    has_left: bool = False


class InstanceLock:
    """The place, taken; release it by ending the process. `id` is the same for each daemon that has it in turn.

    A lock on the file decides who runs: the kernel drops it however the process ends, so a file left behind by a crash
    stands in nobody's way. Its content is information for others.
    """

    def __init__(self, state_dir: Path, role: str) -> None:
        """Take the place. Raises AlreadyRunningError when another process has it."""
        path = state_dir / f"{role}.lock"
        try:
            private.make_private(state_dir)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise full_disk.refused(f"the state folder {state_dir} cannot be written", exc) from exc
        self._state_dir = state_dir
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            holder = find(state_dir, role)
            where = f" at {holder.url} (pid {holder.identity.pid})" if holder else ""
            raise AlreadyRunningError(
                f"a {role} runs already{where}",
                hint=f"one {role} runs per state folder; RBEE_HOME names another one",
                **({"url": holder.url, "pid": holder.identity.pid, "id": holder.id} if holder else {}),
            ) from None
        before = _read(path)
        self.id = before.id if before is not None and _ID.fullmatch(before.id) else secrets.token_hex(16)

    def publish(
        self, url: str, version: str, *, ephemeral: bool, started_by: Literal["user", "queen"] = "user"
    ) -> None:
        """Write down where this daemon is reached. Raises StorageError when the disk is full."""
        identity = process.identify(os.getpid())
        assert identity is not None
        self._holder = Instance(identity, url, version, ephemeral, started_by, self.id)
        try:
            _overwrite(self._descriptor, self._holder)
        except OSError as exc:
            raise full_disk.refused(f"the state folder {self._state_dir} cannot be written", exc) from exc

    def leave(self) -> None:
        """Write down that this daemon has ended all that it had started; whoever comes next need not look for that."""
        with suppress(OSError):  # then somebody looks, and finds nothing
            _overwrite(self._descriptor, msgspec.structs.replace(self._holder, has_left=True))


def _overwrite(descriptor: int, holder: Instance) -> None:
    """Write over what an earlier daemon wrote: that takes no room, so one can start again on a full disk."""
    text = msgspec.json.encode(holder).ljust(PADDED)
    written = os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, written)
    if written < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def find(state_dir: Path, role: str) -> Instance | None:
    """Return the daemon that has the place now, or None."""
    found = _read(state_dir / f"{role}.lock")
    return found if found is not None and process.is_running(found.identity) else None


def find_killed(state_dir: Path, role: str) -> Instance | None:
    """Return the daemon that had the place last and was killed on this boot, so that what it started may run still."""
    found = _read(state_dir / f"{role}.lock")
    if found is None or found.has_left or found.identity.boot_id != process.boot_id():
        return None
    return None if process.is_running(found.identity) else found


def _read(path: Path) -> Instance | None:
    """Return the daemon that had the place last, as far as it said."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Instance)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
