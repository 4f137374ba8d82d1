"""Reads a model reference that a user has typed, and says what they may have meant where it is none."""

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
"""What stands between repository and file in the address of a page."""


def parse(text: str) -> ModelRef:
    """Parse a reference. Raises InvalidRequestError; its hint begins with what is like it and would do."""
    try:
        return model_ref.parse(text)
    except InvalidRequestError as exc:
        if (meant := _file(text) or _hub(text)) is not None:
            exc.hint = f"{meant}\n{exc.hint}"
        raise


def _file(text: str) -> str | None:
    """Return what to do about a path on this machine that is not given as one."""
    path = os.path.abspath(os.path.expanduser(text.removeprefix("file:")))  # noqa: PTH100, PTH111 (pathlib is slow to import)
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    if _is_reference(f"file:{path}"):
        return f"did you mean file:{path}?"
    if not path.endswith(".gguf"):
        return "models are GGUF files, and end in .gguf"
    return f"give the file a name without spaces and other signs: ln -s {shlex.quote(path)} /tmp/model.gguf"


def _hub(text: str) -> str | None:
    """Return the reference that a name or an address of the hub stands for."""
    name = "hf:" + _PAGE.sub("", _HUB.sub("", text)).partition("?")[0]
    return f"did you mean {name}?" if _is_reference(name) else None


def _is_reference(text: str) -> bool:
    try:
        model_ref.parse(text)
    except InvalidRequestError:
        return False
    return True
