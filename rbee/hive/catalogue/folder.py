"""The folder where this node keeps the models of the hub, and those that users have sent here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidRequestError, StorageError
from rbee.hive.catalogue import file_state, variant
from rbee.wire import model_ref
from rbee.wire.hub import HubFile
from rbee.wire.model_ref import ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rbee.hive.catalogue.file_rows import StoredFile
    from rbee.hive.catalogue.file_state import FileState

HF_FOLDER: Final = "hf"
"""Below the folder of models: the files of ORG/REPO are in hf/ORG/REPO."""


FILE_FOLDER: Final = "file"
"""Below the folder of models: the copy of /PATH.gguf is file/PATH.gguf, so that its reference is known by its place."""


def folder_of(models_dir: Path, ref: ModelRef) -> Path:
    """Return the folder below which the files of a model are, by their names."""
    return models_dir / HF_FOLDER / ref.reference if ref.provider == "hf" else pushed(models_dir, ref).parent


def pushed(models_dir: Path, ref: ModelRef) -> Path:
    """Return where the copy of a user's own file is."""
    return models_dir / FILE_FOLDER / ref.reference.lstrip("/")


def paths_of(first: Path) -> list[Path]:
    """Return the paths of all files of a model, given the first. An incomplete model has that one alone."""
    try:
        beside = sorted(path for path in first.parent.iterdir() if path.suffix == first.suffix and path.is_file())
    except OSError:
        return [first]
    groups = variant.group([HubFile(path.name, 0, None) for path in beside])
    for files in groups.values():
        if files[0].name == first.name:
            return [first.with_name(file.name) for file in files]
    return [first]


def states_of(first: Path) -> tuple[FileState, ...]:
    """Return all files of a model as they are now, given the first; nothing where they cannot be looked at."""
    try:
        return file_state.states(paths_of(first))
    except OSError:
        return ()


def remove(models_dir: Path, first: Path) -> None:
    """Remove the files of a model, given the first, and folders left empty. Raises StorageError."""
    try:
        for path in paths_of(first):
            path.unlink(missing_ok=True)
        for folder in first.parents:
            if folder == models_dir or not folder.is_relative_to(models_dir):
                break
            folder.rmdir()  # only where nothing else is in it
    except OSError as exc:
        if any(path.exists() for path in paths_of(first)):
            raise StorageError(f"{first.name} cannot be removed: {exc.strerror}") from exc


def are_whole(files: Sequence[StoredFile]) -> bool:
    """Whether the files are on the disk and no shorter than stored. Users may append to a file."""
    try:
        return all(file.path.is_file() and file.path.stat().st_size >= file.size for file in files)
    except OSError:
        return False


def find_pushed(folder: Path) -> list[tuple[ModelRef, Path, list[HubFile]]]:
    """Return the models below `folder` that users have sent here, as `find_models` does."""
    found = []
    beside: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".gguf" and path.is_file():
            beside.setdefault(path.parent, []).append(path)
    for parent, paths in beside.items():
        for parts in variant.group([HubFile(path.name, path.stat().st_size, None) for path in paths]).values():
            first = parent / parts[0].name
            try:
                ref = model_ref.parse(f"file:/{first.relative_to(folder)}")
            except InvalidRequestError:
                continue
            found.append((ref, first, parts))
    return found


def find_models(folder: Path) -> list[tuple[ModelRef, Path, list[HubFile]]]:
    """Return the models below `folder`, with reference and files; all complete, since a file gets its name last.

    Their hashes are left out: computing them takes as long as reading the files, and happens later.
    """
    found = []
    for repository in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        try:
            model_ref.parse(f"hf:{repository.relative_to(folder)}")
        except InvalidRequestError:
            continue  # somebody else's: no reference could name it, and the database may not take such letters
        files = [path for path in repository.rglob("*") if path.suffix.lower() == ".gguf" and path.is_file()]
        listed = [HubFile(str(path.relative_to(repository)), path.stat().st_size, None) for path in files]
        for parts in variant.group(listed).values():
            ref = ModelRef("hf", str(repository.relative_to(folder)), parts[0].name)
            found.append((ref, repository / parts[0].name, parts))
    return found
