"""Knows the models on this node's disk: the tables `models` and `model_names`, and with them `model_files`."""

from __future__ import annotations

import hashlib
import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import InvalidRequestError, ModelNotFoundError, StorageError
from rbee.hive.catalogue import files as model_files
from rbee.hive.catalogue import variant
from rbee.wire import model_ref
from rbee.wire.hub import HubFile
from rbee.wire.model_ref import ModelRef
from rbee.wire.models import ModelRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from rbee.hive.catalogue.files import Stored, Unhashed
    from rbee.hive.workers.loop import Transact

log = logging.getLogger(__name__)

HF_FOLDER: Final = "hf"
"""Below the folder of models: the files of ORG/REPO are in hf/ORG/REPO."""
_COLUMNS: Final = "id, provider, reference, variant, local_path, size_bytes, sha256, downloaded_at_unix, last_used_unix"


def folder_of(models_dir: Path, reference: str) -> Path:
    """Return where the files of a repository are kept."""
    return models_dir / HF_FOLDER / reference


class Catalogue:
    """The models of this node; `transact` runs a function on the database, in one transaction."""

    def __init__(self, models_dir: Path, transact: Transact) -> None:
        self._models_dir = models_dir
        self._transact = transact

    async def find(self, ref: ModelRef) -> ModelRow | None:
        """Return the model that `ref` has come to mean here, while its file is there; asks nobody else."""
        return await self._checked(await self._transact(partial(_by_name, name=str(ref))))

    async def of_files(self, ref: ModelRef, path: Path, files: Sequence[HubFile]) -> ModelRow | None:
        """Return the model of these files, the first at `path`, which from now on `ref` means too.

        None where there is none, or it was of other files before.
        """
        row: ModelRow | None = await self._checked(await self._transact(partial(_by_path, path=str(path))))
        if row is None or not _are_same(await self._transact(partial(model_files.of, model_id=row.id)), files):
            return None
        await self._transact(partial(_name, ref=ref, model_id=row.id))
        return row

    async def by_id(self, model_id: str) -> ModelRow:
        """Return a model. Raises ModelNotFoundError."""
        row: ModelRow | None = await self._transact(partial(_by_id, model_id=model_id))
        if row is None:
            raise ModelNotFoundError(
                f"there is no model {model_id} in the catalogue", hint="`rbee models list` shows the ids", id=model_id
            )
        return row

    async def has(self, row: ModelRow) -> bool:
        """Whether a model is still in the catalogue; whatever was to be done before this was asked has been done."""
        return await self._transact(partial(_by_id, model_id=row.id)) is not None

    async def all(self) -> list[ModelRow]:
        """Return all models, by id."""
        rows: list[ModelRow] = await self._transact(_all)
        return rows

    async def of_repository(self, reference: str) -> list[tuple[ModelRow, list[HubFile]]]:
        """Return the models of a repository with their files."""
        found: list[tuple[ModelRow, list[HubFile]]] = await self._transact(partial(_of_repository, reference=reference))
        return [(row, files) for row, files in found if await self._checked(row) is not None]

    async def content(self, sha256: str) -> list[Stored]:
        """Return the files of which the catalogue says that they have this hash."""
        found: list[Stored] = await self._transact(partial(model_files.by_hash, sha256=sha256))
        return found

    async def without_hash(self) -> list[Unhashed]:
        """Return the files whose hash is not known, the smallest first."""
        found: list[Unhashed] = await self._transact(model_files.without_hash)
        return found

    async def note_hash(self, file: Unhashed, sha256: str) -> None:
        """Store the hash of a file."""
        await self._transact(partial(model_files.note_hash, file=file, sha256=sha256))

    async def add(self, ref: ModelRef, kind: str, path: Path, files: Sequence[HubFile]) -> ModelRow:
        """Take in a model whose `files` are on the disk, the first at `path`: all about it, in one transaction."""
        work = partial(_add, ref=ref, kind=kind, path=path, files=files, now=time.time())
        row: ModelRow = await self._transact(work)
        return row

    async def used(self, row: ModelRow) -> None:
        """Note that a worker is started with the model; a disk that does not take the note hinders nobody."""
        try:
            await self._transact(partial(_used, model_id=row.id, now=time.time()))
        except StorageError as exc:
            log.warning("the last use of %s is not noted: %s", row.id, exc.message)

    async def forget(self, row: ModelRow) -> None:
        """Delete a model's row and names."""
        await self._transact(partial(_delete, model_id=row.id))

    def owns(self, row: ModelRow) -> bool:
        """Whether the model's files are ours, and not in the user's own cache of the hub."""
        return Path(row.local_path).is_relative_to(self._models_dir)

    async def _checked(self, row: ModelRow | None) -> ModelRow | None:
        """Return the row, or None where one of its files is gone or cut short; the row goes then too."""
        if row is None:
            return None
        files = await self._transact(partial(model_files.stored, model_id=row.id))
        if await trio.to_thread.run_sync(_are_there, files or [model_files.Stored(Path(row.local_path), 0)]):
            return row
        log.warning("a file of model %s is gone or cut short, and so its row is gone", row.id)
        await self.forget(row)
        return None

    async def reconcile(self) -> None:
        """Take in the downloaded files that no row tells of, as all of them are when the database was made anew."""
        found = await trio.to_thread.run_sync(_on_disk, self._models_dir / HF_FOLDER)
        known = {row.local_path for row in await self.all()}
        rebuilt = []
        for ref, path, files in found:
            if str(path) not in known:
                row = await self.add(ref, ref.variant or path.name, path, files)
                rebuilt.append(row.id)
        if rebuilt:
            log.warning("the catalogue was rebuilt from the files on disk: %s", ", ".join(rebuilt))


def paths_of(first: Path) -> list[Path]:
    """Return all files of a model, of which `first` is the first; one that is not whole has that one alone."""
    try:
        beside = sorted(path for path in first.parent.iterdir() if path.suffix == first.suffix and path.is_file())
    except OSError:
        return [first]
    groups = variant.group([HubFile(path.name, 0, None) for path in beside])
    for files in groups.values():
        if files[0].name == first.name:
            return [first.with_name(file.name) for file in files]
    return [first]


def _are_same(known: Sequence[HubFile], files: Sequence[HubFile]) -> bool:
    """Whether these are the same files, as far as their hashes are known."""
    return [file[:2] for file in known] == [file[:2] for file in files] and all(
        None in (one.sha256, other.sha256) or one.sha256 == other.sha256
        for one, other in zip(known, files, strict=True)
    )


def _are_there(files: Sequence[Stored]) -> bool:
    """Whether files are on the disk, as long as they were; a longer one has been added to by its user."""
    try:
        return all(file.path.is_file() and file.path.stat().st_size >= file.size for file in files)
    except OSError:
        return False


def _on_disk(folder: Path) -> list[tuple[ModelRef, Path, list[HubFile]]]:
    """Return the models below `folder`, with reference and files; each whole, since files get their names at the end.

    Their hashes are not known any more: they take as long to compute as the files to read, which happens later.
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


def _row(values: Sequence[object]) -> ModelRow:
    model_id, provider, reference, kind, *rest = values
    ref = ModelRef(provider, reference, kind)  # type: ignore[arg-type]
    names = ("local_path", "size_bytes", "sha256", "downloaded_at_unix", "last_used_unix")
    return ModelRow(
        id=str(model_id),
        model_ref=str(ref),
        provider=ref.provider,
        reference=ref.reference,
        variant=ref.variant or "",
        **dict(zip(names, rest, strict=True)),  # type: ignore[arg-type]
    )


def _one(connection: sqlite3.Connection, condition: str, *values: object) -> ModelRow | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM models WHERE {condition}", values).fetchone()  # noqa: S608
    return None if row is None else _row(row)


def _by_name(connection: sqlite3.Connection, name: str) -> ModelRow | None:
    return _one(connection, "id = (SELECT model_id FROM model_names WHERE name = ?)", name)


def _by_path(connection: sqlite3.Connection, path: str) -> ModelRow | None:
    return _one(connection, "local_path = ?", path)


def _by_id(connection: sqlite3.Connection, model_id: str) -> ModelRow | None:
    return _one(connection, "id = ?", model_id)


def _all(connection: sqlite3.Connection) -> list[ModelRow]:
    return [_row(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM models ORDER BY id")]  # noqa: S608


def _of_repository(connection: sqlite3.Connection, reference: str) -> list[tuple[ModelRow, list[HubFile]]]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM models WHERE provider = 'hf' AND reference = ? ORDER BY id",  # noqa: S608
        (reference,),
    )
    return [(row, model_files.of(connection, row.id)) for row in map(_row, rows.fetchall())]


def _name(connection: sqlite3.Connection, ref: ModelRef, model_id: str) -> None:
    connection.execute("INSERT OR REPLACE INTO model_names (name, model_id) VALUES (?, ?)", (str(ref), model_id))


def _add(
    connection: sqlite3.Connection, ref: ModelRef, kind: str, path: Path, files: Sequence[HubFile], now: float
) -> ModelRow:
    connection.execute(
        "DELETE FROM models WHERE local_path = ? OR (provider, reference, variant) = (?, ?, ?)",
        (str(path), ref.provider, ref.reference, kind),
    )
    model_files.forget_others(connection)
    model_id = path.stem
    if _by_id(connection, model_id) is not None:
        # A file of another repository has this name.
        model_id += "-" + hashlib.sha256(f"{ref.reference}/{kind}".encode()).hexdigest()[:8]
    connection.execute(
        f"INSERT INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",  # noqa: S608
        (
            model_id,
            ref.provider,
            ref.reference,
            kind,
            str(path),
            sum(file.size for file in files),
            files[0].sha256,
            now,
        ),
    )
    model_files.put(connection, model_id, files)
    _name(connection, ref, model_id)
    _name(connection, ref._replace(variant=kind), model_id)
    row = _by_id(connection, model_id)
    assert row is not None
    return row


def _used(connection: sqlite3.Connection, model_id: str, now: float) -> None:
    connection.execute("UPDATE models SET last_used_unix = ? WHERE id = ?", (now, model_id))


def _delete(connection: sqlite3.Connection, model_id: str) -> None:
    connection.execute("DELETE FROM models WHERE id = ?", (model_id,))
    connection.execute("DELETE FROM model_names WHERE model_id = ?", (model_id,))
    model_files.forget_others(connection)
