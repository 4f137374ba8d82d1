"""Asks the Hugging Face hub which files a repository holds, and looks for them in the user's own cache of it.

The interface is that of huggingface_hub: `/api/models/REPO?blobs=true` and `/REPO/resolve/REVISION/FILE`; the layout of
the cache is documented at https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import msgspec

from rbee.errors import DownloadFailedError

if TYPE_CHECKING:
    from rbee.adapters.web import Web

ENDPOINT: Final = "https://huggingface.co"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class HubFile(NamedTuple):
    """A file of a repository: its size in bytes; `sha256` is known of those in large file storage (LFS)."""

    name: str
    size: int
    sha256: str | None


class _Lfs(msgspec.Struct):
    sha256: str = ""
    size: int = 0


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: _Lfs | None = None


class _Repository(msgspec.Struct):
    siblings: list[_Sibling] = msgspec.field(default_factory=list)
    sha: str = "main"


class Repository(NamedTuple):
    """What the hub says of a repository; `revision` names this state of it, so that later files are of it too."""

    name: str
    revision: str
    files: list[HubFile]


def endpoint() -> str:
    """Return the hub's address: `HF_ENDPOINT`, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def token() -> str | None:
    """Return the user's token: `HF_TOKEN`, or what the hub's own tools have stored."""
    if given := os.environ.get("HF_TOKEN", "").strip():
        return given
    path = Path(os.environ.get("HF_TOKEN_PATH") or _home() / "token").expanduser()
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()


def files(web: Web, repository: str) -> Repository:
    """Return the repository's files. Raises BrokenError, or what the hub refuses with."""
    body = web.json(f"{endpoint()}/api/models/{quote(repository)}?blobs=true")
    try:
        found = msgspec.json.decode(body, type=_Repository)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise DownloadFailedError("the hub's answer is not what this version of rbee expects") from exc
    return Repository(repository, found.sha, [_file(sibling) for sibling in found.siblings])


def _file(sibling: _Sibling) -> HubFile:
    lfs = sibling.lfs
    size = lfs.size if lfs is not None and lfs.size else sibling.size or 0
    sha256 = lfs.sha256 if lfs is not None and _SHA256.fullmatch(lfs.sha256) else None
    return HubFile(sibling.rfilename, size, sha256)


def address(repository: Repository, file: str) -> str:
    """Return where a file is fetched."""
    return f"{endpoint()}/{quote(repository.name)}/resolve/{quote(repository.revision, safe='')}/{quote(file)}"


def cached(repository: Repository, file: HubFile) -> Path | None:
    """Return the file in the user's own cache of the hub, whole, or None."""
    hub = Path(os.environ.get("HF_HUB_CACHE") or _home() / "hub").expanduser()
    folder = hub / f"models--{repository.name.replace('/', '--')}" / "snapshots"
    for snapshot in (folder / repository.revision, *_folders(folder)):
        path = snapshot / file.name
        try:
            # The cache names its blobs by the hash, which vouches for the content without reading it.
            if path.stat().st_size == file.size and (file.sha256 is None or path.resolve().name == file.sha256):
                return path.resolve()
        except OSError:
            continue
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
