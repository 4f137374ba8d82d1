"""Finds files of the Hugging Face hub in the user's own cache of it.

Its layout is documented at https://huggingface.co/docs/huggingface_hub/guides/manage-cache: a folder for each
repository, in it one for each revision, whose files are links to blobs named by their hashes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.adapters.download import hub
from rbee.wire.hub import HubFile, Repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def find(repository: Repository, wanted: Sequence[HubFile]) -> list[Path] | None:
    """Return the files, all of them from one snapshot, or None."""
    folder = _folder(repository.name) / "snapshots"
    for snapshot in (folder / repository.revision, *_folders(folder)):
        if all(_is_in(snapshot, file) for file in wanted):
            return [snapshot / file.name for file in wanted]
    return None


def repositories(name: str) -> Iterator[Repository]:
    """Yield what the cache holds of a repository without asking the hub, its main branch's last state first."""
    folder = _folder(name)
    try:
        main = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    for snapshot in sorted(_folders(folder / "snapshots"), key=lambda path: path.name != main):
        yield Repository(name, snapshot.name, _files(snapshot))


def root() -> Path:
    """Return the folder of the cache; without a home folder one that is not there."""
    return hub.folder_of("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") or hub.tools_folder() / "hub"


def _folder(name: str) -> Path:
    return root() / f"models--{name.replace('/', '--')}"


def _is_in(snapshot: Path, file: HubFile) -> bool:
    path = snapshot / file.name
    try:
        # The cache names its blobs by the hash, which vouches for the content without reading it.
        return path.stat().st_size == file.size and file.sha256 in (None, path.resolve().name)
    except OSError:
        return False


def _files(snapshot: Path) -> list[HubFile]:
    found = []
    for path in sorted(path for path in snapshot.rglob("*") if path.suffix.lower() == ".gguf"):
        blob = path.resolve()
        if blob.is_file():
            sha256 = blob.name if _SHA256.fullmatch(blob.name) else None
            found.append(HubFile(str(path.relative_to(snapshot)), blob.stat().st_size, sha256))
    return found


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
