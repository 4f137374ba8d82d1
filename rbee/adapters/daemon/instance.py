"""Ensures one daemon per role and state folder, names the one that runs, and keeps how the last one ended."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec

from rbee.adapters.daemon import exit_report, process
from rbee.adapters.daemon.exit_report import ExitReport
from rbee.adapters.files import distant_disk, full_disk, private
from rbee.errors import AlreadyRunningError

if TYPE_CHECKING:
    from pathlib import Path


PADDED: Final = 512
"""Bytes that a description fills, so that the next one fits into the same room."""
BLOCK: Final = 4096
"""Bytes that a file takes up on most disks anyway: a report stays within them, and its room is kept."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Instance(msgspec.Struct):
    """A daemon: its process, its address, whether it ends with its parent, and what started it.

    `id` is the same for each daemon that has this role in this folder. `ended_cleanly`: all that it started has ended
    too. One that was killed left no `report`, and neither did any of an older version. `settings` is what
    settings_in_use has recorded.
    """

    identity: process.Identity
    url: str
    version: str
    ephemeral: bool
    started_by: Literal["user", "queen"] = "user"
    id: str = ""
    # Older versions, and the scripts for other machines, expect this name in the file.
    ended_cleanly: bool = msgspec.field(default=False, name="has_left")
    report: ExitReport | None = None
    settings: dict[str, Any] | None = None
    inode: int | None = None
    """The file's own: in a copy of the state folder, or one that was restored, it speaks of another folder's daemon."""
    folder: str | None = None
    """A hash of the folder's path, which decides that where inodes do not stay, as after a disk was mounted again."""


class InstanceLock:
    """The lock of a role in a state folder; it is released by the end of the process.

    A lock on the file decides which daemon runs: the kernel drops it however the process ends, so a file left behind by
    a crash stands in nobody's way. Its content is information for others. Leaving the block writes down how the daemon
    ended: with `unfinished`, what it could not end, and with `ended_cleanly`, that nothing it started runs any more.
    """

    def __init__(self, state_dir: Path, role: str) -> None:
        """Take the lock. Raises AlreadyRunningError when another process has it."""
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
                f"a {role} is already running{where}",
                hint=f"one {role} runs per state folder; RBEE_HOME names another one",
                **({"url": holder.url, "pid": holder.identity.pid, "id": holder.id} if holder else {}),
            ) from None
        before = _read(path)
        self.id = before.id if before is not None and _ID.fullmatch(before.id) else secrets.token_hex(16)
        self.ended_cleanly = False
        self.unfinished: list[str] = []
        self._published: Instance | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        if self._published is None:
            return  # it has announced why it could not start
        left = msgspec.structs.replace(
            self._published, ended_cleanly=self.ended_cleanly, report=exit_report.report(failure, self.unfinished)
        )
        try:
            _overwrite(self._descriptor, left)
        except OSError:  # a report may need more room than the disk has
            with suppress(OSError):
                _overwrite(self._descriptor, msgspec.structs.replace(left, report=None))

    def publish(
        self,
        url: str,
        version: str,
        *,
        ephemeral: bool,
        started_by: Literal["user", "queen"] = "user",
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Write down where this daemon is reached. Raises StorageError when the disk is full."""
        identity = process.identify(os.getpid())
        assert identity is not None
        self._published = Instance(
            identity,
            url,
            version,
            ephemeral,
            started_by,
            self.id,
            settings=settings,
            inode=os.fstat(self._descriptor).st_ino,
            folder=_hash(self._state_dir),
        )
        try:
            _overwrite(self._descriptor, self._published)
        except OSError as exc:
            raise full_disk.refused(f"the state folder {self._state_dir} cannot be written", exc) from exc


def _overwrite(descriptor: int, holder: Instance) -> None:
    """Write over what an earlier daemon wrote: that takes no room, so one can start again on a full disk.

    The file does not shrink, so a reader never finds the end of the text before.
    """
    text = msgspec.json.encode(holder).ljust(max(PADDED, min(os.fstat(descriptor).st_size, BLOCK)))
    written = os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, written)
    if written < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def find(state_dir: Path, role: str) -> Instance | None:
    """Return the daemon of that role that runs now, or None."""
    found = _read_own(state_dir / f"{role}.lock")
    return found if found is not None and process.is_running(found.identity) else None


def find_uncleanly_ended(state_dir: Path, role: str) -> Instance | None:
    """Return the last daemon if it ended on this boot, killed or not, and left something that may run still."""
    found = _read_own(state_dir / f"{role}.lock")
    if found is None or found.ended_cleanly or found.identity.boot_id != process.boot_id():
        return None
    return None if process.is_running(found.identity) else found


def exit_report_of(state_dir: Path, role: str, identity: process.Identity) -> ExitReport | None:
    """Return how exactly this daemon ended; None when it was killed before it could report that.

    None too where another daemon has published itself since: the file holds nothing of the one before.
    """
    found = _read(state_dir / f"{role}.lock")
    if found is None or found.identity != identity:
        return None
    if found.report is None and found.ended_cleanly:
        return ExitReport()  # of an older version, which wrote no more than this
    return found.report


def _read_own(path: Path) -> Instance | None:
    """Return what `_read` does, unless the file is a copy, whose daemon has another folder."""
    found = _read(path)
    if found is None or found.inode is None:
        return found
    try:
        if path.stat().st_ino == found.inode:
            return found
        return found if found.folder == _hash(path.parent) and distant_disk.is_distant(path) else None
    except OSError:
        return None


def _hash(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _read(path: Path) -> Instance | None:
    """Return the daemon that had the lock last, as it described itself."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Instance)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
