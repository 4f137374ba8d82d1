"""The parts of one model on the disk: a folder of files, shared with other workers of that model.

Any of them may be gone, or damaged, at any time: then it is not there, which costs the time to compute it, and is no
error to anybody.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import full_disk, private
from rbee.worker.prefix_store import part_file
from rbee.worker.prefix_store.disk_room import UNFINISHED, DiskRoom, NoDiskRoomError
from rbee.worker.prefix_store.part_file import DamagedPartError, PartName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rbee.worker.engine.state_store import StoredPart

log = logging.getLogger(__name__)

TOUCH_SECONDS: Final = 60.0
"""How often a file that is used is marked as used."""
SETTLED_NS: Final = 100_000_000
TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# What language models made of prompts, kept by rbee; see `disk_mb` under [cache] in its settings.\n"
)
"""Tells programs that make backups to leave the folder out (bford.info/cachedir)."""


class DiskFolder:
    """The folder `root`/MODEL_KEY, of which it is known what there is; all folders in `root` take `limit` bytes.

    `holds`, `lengths`, `read` and `bytes` are for the engine's thread, all else is for the store's own.
    """

    def __init__(self, root: Path, model_key: bytes, limit: int) -> None:
        """Open the folder, which is made where it is missing; takes some ms. Raises OSError."""
        self._root = root
        self._folder = root / model_key.hex()
        self._model_key = model_key
        self._room = DiskRoom(root, limit)
        self._lock = threading.Lock()
        self._names: dict[bytes, PartName] = {}
        self._ends: Counter[int] = Counter()
        self._touched: dict[bytes, float] = {}
        self._seen_ns = 0
        self._is_refused = False
        self.bytes = 0
        """What this model's parts take."""
        self.damaged = 0
        """Files that were not what had been written."""
        self._make_folder()
        self.refresh()

    def _make_folder(self) -> None:
        is_new = not self._root.exists()
        private.make_private(self._root)
        if is_new:
            (self._root / "CACHEDIR.TAG").write_text(TAG, encoding="ascii")
        private.make_private(self._folder)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f"{self._folder} is no folder that this user alone can write to")

    def holds(self, key: bytes) -> bool:
        return key in self._names

    def lengths(self) -> list[int]:
        """Return where its parts end."""
        with self._lock:
            return list(self._ends)

    def read(self, key: bytes) -> StoredPart | None:
        """Return a part. One that cannot be read, or is not as it was written, is forgotten and removed: None."""
        with self._lock:
            name = self._names.get(key)
        if name is None:
            return None
        path = self._folder / str(name)
        try:
            return part_file.read(path, self._model_key, name)
        except DamagedPartError:
            self.damaged += 1
            log.warning("the file %s in the cache of prompts is damaged, and is removed", path.name)
        except FileNotFoundError:
            pass  # another worker has removed it
        except (OSError, MemoryError) as exc:
            self.damaged += 1
            log.warning("the file %s in the cache of prompts cannot be read (%s), and is removed", path.name, exc)
        self._forget(name)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def refresh(self) -> None:
        """Look which parts there are now, if that has changed: other workers of the model add some, and remove some."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
            if changed_ns == self._seen_ns:
                return
            entries = os.listdir(self._folder)  # noqa: PTH208 (names alone: there may be thousands)
        except OSError:
            changed_ns, entries = 0, []
        names = (PartName.parse(entry) for entry in entries)
        found = {name.key: name for name in names if name is not None}
        with self._lock:
            self._names = found
            self._ends = Counter(name.end for name in found.values())
            self.bytes = sum(name.size for name in found.values())
            self._touched = {key: at for key, at in self._touched.items() if key in found}
        # Within one tick of the file system's clock it may change once more, and look the same.
        self._seen_ns = changed_ns if abs(time.time_ns() - changed_ns) > SETTLED_NS else 0

    def write(self, key: bytes, part: StoredPart) -> None:
        """Put a part on the disk, if there is room; that there is none is said once."""
        name = PartName.of(key, part)
        if self.holds(key):
            return
        try:
            if not self._folder.exists():
                self._make_folder()  # somebody has emptied the cache
            for path in self._room.make(name.size):
                if path.parent == self._folder and (evicted := PartName.parse(path.name)) is not None:
                    self._forget(evicted)
            self._put(name, part)
        except NoDiskRoomError:
            self._refuse("the disk is nearly full, or `disk_mb` under [cache] too small")
        except OSError as exc:
            self._refuse("the disk is full" if full_disk.is_full(exc) else exc.strerror or str(exc))

    def _put(self, name: PartName, part: StoredPart) -> None:
        scratch = self._folder / f"{UNFINISHED}{secrets.token_hex(8)}"
        part_file.write(scratch, self._model_key, name.key, part)
        try:
            # The folder is not synced: a name that a power failure takes is a part that is computed again.
            scratch.replace(self._folder / str(name))
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise
        with self._lock:
            if name.key not in self._names:
                self._names[name.key] = name
                self._ends[name.end] += 1
                self.bytes += name.size
            self._touched[name.key] = time.monotonic()

    def mark_used(self, keys: Iterable[bytes]) -> None:
        """Remember on the disk that these parts were used."""
        now = time.monotonic()
        for key in keys:
            if (name := self._names.get(key)) is None or now - self._touched.get(key, -TOUCH_SECONDS) < TOUCH_SECONDS:
                continue
            self._touched[key] = now
            with suppress(OSError):
                os.utime(self._folder / str(name))

    def _forget(self, name: PartName) -> None:
        with self._lock:
            self._touched.pop(name.key, None)
            if self._names.pop(name.key, None) is None:
                return
            self.bytes -= name.size
            self._ends[name.end] -= 1
            if not self._ends[name.end]:
                del self._ends[name.end]

    def _refuse(self, why: str) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.warning("prompts are no longer kept in %s: %s", self._root, why)
