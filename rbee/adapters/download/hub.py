"""Asks the Hugging Face hub which files a repository holds.

The interface is that of huggingface_hub: `/api/models/REPO?blobs=true` and `/REPO/resolve/REVISION/FILE`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec

from rbee.adapters.download.proxies import HINT
from rbee.adapters.files import home, regular
from rbee.errors import DownloadFailedError, ModelAccessDeniedError
from rbee.wire import hub as wire

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.download.web import Web
    from rbee.wire.hub import Repository

ENDPOINT: Final = "https://huggingface.co"
_ADDRESS: Final = re.compile(r"https?://[^/?#\s\"']+(/[^?#\s\"']*)?", re.IGNORECASE)


def endpoint() -> str:
    """Return the hub's address: `HF_ENDPOINT`, or the public one. Raises DownloadFailedError for what is none."""
    found = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if found and not _is_address(found):
        raise DownloadFailedError(
            f"HF_ENDPOINT names no web address; one looks like {ENDPOINT}", hint=HINT, variable="HF_ENDPOINT"
        )
    return found or ENDPOINT


def _is_address(text: str) -> bool:
    if not _ADDRESS.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        return False


def token() -> str | None:
    """Return the user's token: `HF_TOKEN`, or what the hub's own tools have stored; None where it is not to be sent.

    Raises ModelAccessDeniedError for what can be no token.
    """
    if _is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    if not (found := _first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN").strip()):
        try:
            found = regular.read(folder_of("HF_TOKEN_PATH") or tools_folder() / "token").decode("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError):
            return None
    if not re.fullmatch(r"[!-~]*", found):
        raise ModelAccessDeniedError("the Hugging Face token of this node holds characters that no token has")
    return found or None


def tools_folder() -> Path:
    """Return the folder of the hub's own tools."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return folder_of("HF_HOME") or home.found(f"{cache}/huggingface")


def folder_of(*variables: str) -> Path | None:
    """Return the path in the first of these variables that is set, with other variables in it; None without."""
    found = _first(*variables)
    return home.found(os.path.expandvars(found)) if found else None


def offline() -> str | None:
    """Return the variable that says not to ask the hub for anything; None where none does."""
    return next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_set(name)), None)


def _first(*variables: str) -> str:
    return next(filter(None, map(os.environ.get, variables)), "")


def _is_set(variable: str) -> bool:
    """Whether a switch is on, as the hub's own tools read it (huggingface_hub/constants.py)."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def files(web: Web, repository: str) -> Repository:
    """Return the repository's files. Raises BrokenError, or what the hub refuses with."""
    body = web.read(f"{endpoint()}/api/models/{quote(repository)}?blobs=true")
    try:
        return wire.decode(repository, body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise DownloadFailedError("the hub's answer is not what this version of rbee expects") from exc


def address(repository: Repository, file: str) -> str:
    """Return where a file is fetched."""
    return f"{endpoint()}/{quote(repository.name)}/resolve/{quote(repository.revision, safe='')}/{quote(file)}"
