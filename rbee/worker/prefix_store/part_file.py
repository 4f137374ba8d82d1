"""The file of one part: its name, its header, and its checksum.

A part is only used where all of it is as it was written: the library that reads it back checks nothing but shapes.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.worker.engine.state_store import StoredPart

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
_MAGIC: Final = b"rbee\x89kv\n"
_FIELDS: Final = struct.Struct("<8sI16s16sQQQ")
"""Magic, version, the model's key, the part's, start, end, bytes of data; then the checksum of these and the data."""
_CHECKSUM_BYTES: Final = 32
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM_BYTES
_NAME: Final = re.compile(r"([0-9a-f]{32})-(\d{1,10})-(\d{1,10})-(\d{1,13})\.part", re.ASCII)
_LARGEST_WRITE: Final = 1 << 24


class DamagedPartError(Exception):
    """A file is not what was written under its name."""


class PartName(NamedTuple):
    """What the name of a part's file says: so a list of names tells what there is, and how large it is."""

    key: bytes
    start: int
    end: int
    size: int

    @classmethod
    def of(cls, key: bytes, part: StoredPart) -> PartName:
        return cls(key, part.start, part.end, HEADER_BYTES + len(part.data))

    @classmethod
    def parse(cls, name: str) -> PartName | None:
        """Return what a name says; None where it is not that of a part."""
        if (found := _NAME.fullmatch(name)) is None:
            return None
        start, end, size = map(int, found.groups()[1:])
        return cls(bytes.fromhex(found[1]), start, end, size) if start < end and size >= HEADER_BYTES else None

    def __str__(self) -> str:
        return f"{self.key.hex()}-{self.start}-{self.end}-{self.size}.part"


def write(path: Path, model_key: bytes, key: bytes, part: StoredPart) -> None:
    """Write a new file that only its user may read, down to the disk. Raises OSError, and leaves nothing then."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fields = _FIELDS.pack(_MAGIC, VERSION, model_key, key, part.start, part.end, len(part.data))
            _write_all(descriptor, fields + _checksum(fields, part.data))
            _write_all(descriptor, part.data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read(path: Path, model_key: bytes, name: PartName) -> StoredPart:
    """Return the part. Raises DamagedPartError where it is another one or damaged, and OSError where it cannot be read.

    It is read into memory of our own: of a mapped file that another process cuts off, or whose disk fails, a page
    could not be read, and the system would end this process.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != name.size or found.st_uid != os.geteuid():
            raise DamagedPartError
        fields = _FIELDS.pack(_MAGIC, VERSION, model_key, name.key, name.start, name.end, name.size - HEADER_BYTES)
        header = os.read(descriptor, HEADER_BYTES)
        if header[: len(fields)] != fields:
            raise DamagedPartError
        data = _read_all(descriptor, name.size - HEADER_BYTES)
    finally:
        os.close(descriptor)
    if header[len(fields) :] != _checksum(fields, data):
        raise DamagedPartError
    return StoredPart(name.start, name.end, data)


def _checksum(fields: bytes, data: bytes | memoryview) -> bytes:
    # Long data is hashed without the GIL.
    digest = blake2b(fields, digest_size=_CHECKSUM_BYTES)
    digest.update(data)
    return digest.digest()


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest[:_LARGEST_WRITE]) :]


def _read_all(descriptor: int, size: int) -> bytes:
    """Return so many bytes, without a copy where the system gives them at once, as it does below 2 GiB."""
    data = os.read(descriptor, size)
    while len(data) < size:
        if not (more := os.read(descriptor, size - len(data))):
            raise DamagedPartError
        data += more
    return data
