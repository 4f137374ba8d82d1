"""Finds the model file that a user names by its path, and checks that it can be one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rbee.errors import InvalidRequestError, ModelNotFoundError, StorageError
from rbee.wire import model_ref
from rbee.wire.model_push import MAGIC, PushedFile, part_names

if TYPE_CHECKING:
    from collections.abc import Sequence


class LocalModel(NamedTuple):
    """A model on this machine: the reference that means it, and its files in order."""

    reference: str
    paths: Sequence[Path]
    files: Sequence[PushedFile]

    @classmethod
    def find(cls, text: str) -> LocalModel:
        """Return the model at a path; of a split model any of its files names it.

        Raises InvalidRequestError, ModelNotFoundError or StorageError.
        """
        if text.startswith(("hf:", "builtin:", "http:", "https:")):
            raise _refused(
                f"{text} is no file of this machine",
                "`rbee models pull REF --node NAME` has a node fetch a model of the hub; the bundled one is everywhere",
            )
        path = Path(os.path.abspath(os.path.expanduser(text.removeprefix("file:"))))  # noqa: PTH100, PTH111 (no links)
        if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
            raise _refused(f"{path} is a folder", "name the model file in it")
        if path.suffix.lower() != ".gguf":
            raise _refused(f"{path.name} is no model file: their names end in .gguf", "models are GGUF files")
        try:
            paths = [path.with_name(name) for name in part_names(path.name)]
        except ValueError:
            raise _refused(f"{path.name} is no part of a split model", "parts are counted from 1 to 999") from None
        files = [_described(one) for one in paths]
        return cls(str(model_ref.parse(f"file:{paths[0]}")), paths, files)

    @property
    def size(self) -> int:
        return sum(file.size_bytes for file in self.files)


def _described(path: Path) -> PushedFile:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its writer
            raise _refused(f"{path.name} is not a file", "a pipe or a device cannot be sent")
        with path.open("rb") as file:
            begin, found = file.read(len(MAGIC)), os.fstat(file.fileno())
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no file {path}", hint="the path is that of this machine") from None
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc.strerror}") from exc
    if begin != MAGIC:
        raise _refused(f"{path.name} is not a GGUF file", "was it fetched whole, and is it no text or web page?")
    return PushedFile(name=path.name, size_bytes=found.st_size, modified_ns=found.st_mtime_ns)


def _refused(why: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(why, hint=hint, field="file", rule="a GGUF file")
