"""Parses a model reference that a user has typed, and suggests one if it is invalid."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidRequestError
from rbee.wire import model_ref

if TYPE_CHECKING:
    from rbee.wire.model_ref import ModelRef

_HUB: Final = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/")
_PAGE: Final = re.compile(r"/(?:blob|resolve|tree)/[^/]+")
"""The part between repository and file in the address of a page."""


def parse(text: str) -> ModelRef:
    """Parse a reference. Raises InvalidRequestError, whose hint begins with a similar one that is valid."""
    try:
        return model_ref.parse(text)
    except InvalidRequestError as exc:
        if (suggestion := _file(text) or _hub(text)) is not None:
            exc.hint = f"{suggestion}\n{exc.hint}"
        raise


def _file(text: str) -> str | None:
    """Return a suggestion if `text` is the path of a file on this machine."""
    path = os.path.abspath(os.path.expanduser(text.removeprefix("file:")))  # noqa: PTH100, PTH111 (pathlib is slow to import)
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    if _is_reference(f"file:{path}"):
        return f"did you mean file:{path}?"
    if not path.endswith(".gguf"):
        return "models are GGUF files, whose names end in .gguf"
    return f"give the file a name without spaces or special characters: ln -s {shlex.quote(path)} /tmp/model.gguf"


def _hub(text: str) -> str | None:
    """Return a suggestion if `text` is a repository's name or a page of the hub."""
    name = "hf:" + _PAGE.sub("", _HUB.sub("", text)).partition("?")[0]
    return f"did you mean {name}?" if _is_reference(name) else None


def _is_reference(text: str) -> bool:
    try:
        model_ref.parse(text)
    except InvalidRequestError:
        return False
    return True
