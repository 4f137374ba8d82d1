"""Finds the file of a model reference on this node, and reads its header."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import rbee.data
from rbee.adapters.daemon import process
from rbee.errors import ModelLoadFailedError, ModelNotFoundError, from_body
from rbee.wire import model_ref
from rbee.wire.gguf import ModelHeader

if TYPE_CHECKING:
    from rbee.wire.model_ref import ModelRef

BUILTIN_FILES: Final = {"bee-stories": "bee-stories.Q8_0.gguf"}
HEADER_SECONDS: Final = 30


def locate(ref: ModelRef) -> Path:
    """Return the model's file. Raises ModelNotFoundError naming what is there instead."""
    match ref.provider:
        case "builtin":
            path = Path(rbee.data.__path__[0]) / BUILTIN_FILES[ref.reference]
        case "file":
            path = Path(ref.reference)
        case _:
            raise ModelNotFoundError(
                f"{ref} is not on this node", hint=f"{model_ref.BUILTIN} is always there, file:/absolute/path.gguf too"
            )
    # Not Path.is_file, which raises for a name that no file can have.
    if not os.path.isfile(path):  # noqa: PTH113
        raise ModelNotFoundError(
            f"{ref} is not a file on this node",
            hint=f"the path is that of the node; `rbee models push FILE --node NAME` copies a file of yours there, "
            f"and {model_ref.BUILTIN} is always there",
        )
    return path


def changed_at(ref: ModelRef) -> float | None:
    """Return when the file of a `file:` reference has come to its path or was last written; None without one.

    The time of change too (Unix seconds): a file that is renamed keeps the time at which it was written.
    """
    try:
        found = os.stat(ref.reference)  # noqa: PTH116 (as above)
    except (OSError, ValueError):
        return None
    return max(found.st_mtime, found.st_ctime)


async def read_header(path: Path) -> ModelHeader:
    """Read a model's metadata in a child process: a hostile file may crash the reader.

    Raises ModelLoadFailedError with the reason.
    """
    if (done := await process.run(["model-header", str(path)], seconds=HEADER_SECONDS)) is None:
        raise ModelLoadFailedError(
            f"the header of {path.name} was not read within {HEADER_SECONDS} s",
            hint="is the disk that it is on all right?",
        )
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=ModelHeader)
        error = from_body(msgspec.json.decode(done.stdout))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = None
    reason = process.describe_end(done.returncode)
    raise error or ModelLoadFailedError(
        f"the header of {path.name} ended the process that read it ({reason}): the file is damaged, or made to do harm",
        reason="corrupt",
    )
