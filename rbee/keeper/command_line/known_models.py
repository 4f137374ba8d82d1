"""The names by which a user may call this machine's models: those that ship with rbee, and those that are fetched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidRequestError
from rbee.wire import model_ref

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_LIKENESS: Final = 0.75
_LEAST_BEGINNING: Final = 3
"""Letters of a name from which on its beginning means it."""


def near(word: str, models_dir: str | os.PathLike[str] | None) -> str | None:
    """Return the reference of the model whose name is like `word`, if there is one."""
    from difflib import get_close_matches

    word = word.removeprefix("builtin").lstrip(":/").casefold()
    if "/" in word or not word:
        return None
    known = {name.casefold(): reference for name, reference in _names(models_dir)}
    for name in get_close_matches(word, known, 1, LEAST_LIKENESS):
        return known[name]
    begun = {reference for name, reference in known.items() if name.startswith(word)}
    return begun.pop() if len(begun) == 1 and len(word) >= _LEAST_BEGINNING else None


def may_be_id(word: str, *folders: str | os.PathLike[str]) -> bool:
    """Whether `word` may be an id in this machine's catalogue: the stem of a file in `folders`, or begins with one."""
    return any(
        word.startswith(file.removesuffix(".gguf")) for folder in folders for _, file in _files(os.fspath(folder))
    )


def has_part(name: str, models_dir: str | os.PathLike[str]) -> bool:
    """Whether the path of a model that was fetched holds this name."""
    plain = name.partition(":")[0].casefold()
    return any(plain in f"{folder}/{file}".casefold() for folder, file in _files(os.fspath(models_dir)))


def _names(models_dir: str | os.PathLike[str] | None) -> Iterator[tuple[str, str]]:
    for name in model_ref.BUILTIN_FILES:
        for called in (name, name.replace("-", ""), name.replace("-", "_"), *name.split("-")):
            yield called, f"builtin:{name}"
    if models_dir is None:
        return
    root = os.path.join(models_dir, "hf")  # noqa: PTH118 (pathlib is slow to import)
    for folder, file in _files(root):
        reference = f"hf:{os.path.relpath(os.path.join(folder, file), root)}"  # noqa: PTH118
        if is_reference(reference):
            yield file.removesuffix(".gguf"), reference
            yield reference.split("/")[1], reference


def _files(root: str) -> Iterator[tuple[str, str]]:
    """Yield the models below a folder: the folder of each, and its name."""
    for folder, _, files in os.walk(root):
        for file in files:
            if file.endswith(".gguf"):
                yield folder, file


def is_reference(text: str) -> bool:
    try:
        model_ref.parse(text)
    except InvalidRequestError:
        return False
    return True
