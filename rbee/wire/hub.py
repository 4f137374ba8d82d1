"""The Hugging Face hub's answer about a repository: `/api/models/REPO?blobs=true`, as far as rbee reads it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 1 << 62
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class HubFile(NamedTuple):
    """A file of a repository: its size in bytes; `sha256` is known for those in large file storage (LFS)."""

    name: str
    size: int
    sha256: str | None


class Repository(NamedTuple):
    """A repository; `revision` names this state of it, so that later files are of it too."""

    name: str
    revision: str
    files: list[HubFile]


class _Lfs(msgspec.Struct):
    sha256: str = ""
    size: int = 0


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None

    def file(self) -> HubFile:
        lfs = self.lfs or _Lfs()
        size = lfs.size or self.size or 0
        size = size if 0 < size <= _LARGEST else 0  # which is: not known
        return HubFile(self.rfilename, size, lfs.sha256 if _SHA256.fullmatch(lfs.sha256) else None)


class _Model(msgspec.Struct):
    siblings: list[_Sibling] = msgspec.field(default_factory=list)
    sha: str | None = None


def decode(name: str, body: bytes) -> Repository:
    """Decode an answer. Raises what msgspec raises, UnicodeDecodeError or RecursionError for what is none."""
    found = msgspec.json.decode(body, type=_Model)
    revision = found.sha if found.sha is not None and _REVISION.fullmatch(found.sha) else "main"
    return Repository(name, revision, [sibling.file() for sibling in found.siblings])
