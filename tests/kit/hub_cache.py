"""Fills a cache of the Hugging Face hub as huggingface_hub does: blobs named by their hashes, and links to them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from tests.kit.hub import REVISION

if TYPE_CHECKING:
    from pathlib import Path


def store(
    cache: Path, repository: str, name: str, content: bytes, *, sha256: str | None = None, revision: str = REVISION
) -> Path:
    """Put a file into a cache, and return the link to it; `sha256` replaces the true hash."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / (sha256 or hashlib.sha256(content).hexdigest())
    link = folder / "snapshots" / revision / name
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs" / "main").write_text(revision)
    return link
