"""Finds the file of a model reference on this node, and reads its header."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import rbee.data
from rbee.adapters.daemon import process
from rbee.errors import ModelLoadFailedError, ModelNotFoundError
from rbee.wire import model_ref
from rbee.wire.error_body import from_body
from rbee.wire.gguf import ModelHeader

if TYPE_CHECKING:
    from rbee.wire.model_ref import ModelRef

HEADER_SECONDS: Final = 30


def locate(ref: ModelRef) -> Path:
    """Return the model's file. Raises ModelNotFoundError naming what is there instead."""
    match ref.provider:
        case "builtin":
            path = Path(rbee.data.__path__[0]) / model_ref.BUILTIN_FILES[ref.reference]
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


async def read_header(path: Path) -> ModelHeader:
    """Read a model's metadata in a child process: a hostile file may crash the reader.

    Raises ModelLoadFailedError with the reason.
    """
    if (done := await process.run(["model-header", str(path)], seconds=HEADER_SECONDS)) is None:
        raise ModelLoadFailedError(
            f"the header of {path.name} was not read within {HEADER_SECONDS} s",
            hint="is the disk that it is on all right?",
        )
    return _decoded(path.name, done.returncode, done.stdout)


def read_beginning(path: Path, size: int) -> ModelHeader:
    """Read the metadata of a model that is being fetched, of which the partial file `path` has the beginning; blocks.

    Raises as `read_header` does; also where the header is not whole yet.
    """
    try:
        done = process.run_blocking(["model-header", str(path), str(size)], seconds=HEADER_SECONDS)
    except OSError as exc:
        raise ModelLoadFailedError(f"the header of {path.name} was not read") from exc
    if done is None:
        raise ModelLoadFailedError(f"the header of {path.name} was not read within {HEADER_SECONDS} s")
    return _decoded(path.name, done.returncode, done.stdout)


def _decoded(name: str, returncode: int, printed: bytes) -> ModelHeader:
    try:
        if returncode == 0:
            return msgspec.json.decode(printed, type=ModelHeader)
        error = from_body(msgspec.json.decode(printed))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = None
    reason = process.describe_end(returncode)
    raise error or ModelLoadFailedError(
        f"the header of {name} ended the process that read it ({reason}): the file is damaged, or made to do harm",
        reason="corrupt",
    )
