"""Names a model and all else that decides what its memory holds: a state under another name is never looked at.

A file counts as the same where its size, the time of its last change (to the nanosecond) and a sample of its content
are: the beginning, and 4 KiB of each MiB. So a weight that is changed in place shows by the time, and another model
that was unpacked with this one's time shows in the sample, which meets each tensor of a MiB and more. A checksum of
all of it would take the processor a second for a GB, at each start.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.wire.split_name import SplitName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY_BYTES: Final = 16
BEGINNING: Final = 1 << 20
SAMPLE: Final = 4096
MOST_SAMPLES: Final = 4096
"""Of one file: they take 15 ms where the system still has the file in memory, as it does behind a load."""


class _FileState(NamedTuple):
    device: int
    inode: int
    size: int
    changed_ns: int


class ModelFiles:
    """The files of a model, as they are now: before it is loaded."""

    def __init__(self, path: Path) -> None:
        """`path` is that of a model, or of the first file of one that is split."""
        split = SplitName.parse(path.name)
        self._paths = [path] if split is None else [path.with_name(name) for name in split.all()]
        self._states = self._look()

    def identity(self) -> bytes:
        """Return what tells this model from others, for after it was loaded; 16 bytes.

        Where a file was replaced meanwhile nobody knows what was loaded: then it is a model that never was before. So
        it is where one cannot be read.
        """
        digest = blake2b(digest_size=KEY_BYTES)
        try:
            for path, state in zip(self._paths, self._states, strict=True):
                digest.update(f"{state.size} {state.changed_ns} ".encode())
                _sample(path, state.size, digest)
        except (OSError, ValueError):  # not as many as there should be
            return os.urandom(KEY_BYTES)
        return digest.digest() if self._look() == self._states else os.urandom(KEY_BYTES)

    def _look(self) -> list[_FileState]:
        try:
            found = [path.stat() for path in self._paths]
        except OSError:
            return []
        return [_FileState(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


def _sample(path: Path, size: int, digest: blake2b) -> None:
    with path.open("rb", buffering=0) as file:
        digest.update(file.read(BEGINNING))
        step = max(BEGINNING, -(-size // MOST_SAMPLES))
        for at in (*range(BEGINNING, size - SAMPLE, step), max(0, size - SAMPLE)):
            digest.update(os.pread(file.fileno(), SAMPLE, at))


def model_key(identity: bytes, facts: Iterable[object]) -> bytes:
    """Return the name of a model under these further facts: what computes it, and how; numbers and short texts."""
    return blake2b(repr((identity, *facts)).encode(), digest_size=KEY_BYTES).digest()
