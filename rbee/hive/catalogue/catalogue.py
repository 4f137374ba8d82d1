"""The catalogue of the models on this node's disk: its rows in the database, checked against the files."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from rbee.adapters.nearest import did_you_mean
from rbee.errors import ModelNotFoundError, StorageError
from rbee.hive.catalogue import file_rows, folder, model_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.store.sqlite import Transact
    from rbee.hive.catalogue.file_rows import StoredFile, UnhashedFile
    from rbee.wire.hub import HubFile
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.models import ModelRow

log = logging.getLogger(__name__)


class Catalogue:
    """The models of this node."""

    def __init__(self, models_dir: Path, transact: Transact) -> None:
        self._models_dir = models_dir
        self._transact = transact

    async def find(self, ref: ModelRef) -> ModelRow | None:
        """Return the model that `ref` means on this node, if its files are still there; asks no other machine."""
        return await self._checked(await self._transact(partial(model_rows.by_name, name=str(ref))))

    async def of_files(self, ref: ModelRef, path: Path, files: Sequence[HubFile]) -> ModelRow | None:
        """Return the model made of `files`, the first at `path`, and let `ref` mean it from now on.

        None if there is none, or if its row was for other files.
        """
        row = await self._checked(await self._transact(partial(model_rows.by_path, path=str(path))))
        if row is None or not _are_same(await self._transact(partial(file_rows.of, model_id=row.id)), files):
            return None
        await self._transact(partial(model_rows.add_name, ref=ref, model_id=row.id))
        return row

    async def by_id(self, model_id: str) -> ModelRow:
        """Return a model. Raises ModelNotFoundError."""
        row = await self._transact(partial(model_rows.by_id, model_id=model_id))
        if row is None:
            meant = did_you_mean(model_id, [known.id for known in await self.all()])
            hint = (f"{meant} " if meant else "") + "`rbee models list` shows the ids"
            raise ModelNotFoundError(f"there is no model {model_id} in the catalogue", hint=hint, id=model_id)
        return row

    async def has(self, row: ModelRow) -> bool:
        """Whether a model is still in the catalogue, after every transaction that was requested before."""
        return await self._transact(partial(model_rows.by_id, model_id=row.id)) is not None

    async def all(self) -> list[ModelRow]:
        return await self._transact(model_rows.all_models)

    async def of_repository(self, ref: ModelRef) -> list[tuple[ModelRow, list[HubFile]]]:
        """Return the models of the repository of `ref`, with their files; of a user's own file, that model alone."""
        models = await self._transact(partial(model_rows.of_repository, ref=ref))
        return [(row, files) for row, files in models if await self._checked(row) is not None]

    async def hashes_at(self, path: Path) -> dict[str, str]:
        """Return the hashes of the files of the model whose first file is at `path`, as far as they are known."""
        row = await self._checked(await self._transact(partial(model_rows.by_path, path=str(path))))
        files = [] if row is None else await self._transact(partial(file_rows.of, model_id=row.id))
        return {file.name: file.sha256 for file in files if file.sha256 is not None}

    async def content(self, sha256: str) -> list[StoredFile]:
        """Return the files that have this hash, according to the catalogue."""
        return await self._transact(partial(file_rows.by_hash, sha256=sha256))

    async def without_hash(self) -> list[UnhashedFile]:
        return await self._transact(file_rows.without_hash)

    async def note_hash(self, file: UnhashedFile, sha256: str) -> None:
        await self._transact(partial(file_rows.note_hash, file=file, sha256=sha256))

    async def add(self, ref: ModelRef, kind: str, path: Path, files: Sequence[HubFile]) -> ModelRow:
        """Add a model whose `files` are on the disk, the first at `path`, in one transaction."""
        work = partial(model_rows.add, ref=ref, kind=kind, path=path, files=files, now=time.time())
        return await self._transact(work)

    async def note_use(self, row: ModelRow) -> None:
        """Store that a worker is about to use the model.

        A failure is only logged: it must not keep the worker from starting.
        """
        try:
            await self._transact(partial(model_rows.note_use, model_id=row.id, now=time.time()))
        except StorageError as exc:
            log.warning("the last use of %s is not noted: %s", row.id, exc.message)

    async def forget(self, row: ModelRow) -> None:
        await self._transact(partial(model_rows.delete, model_id=row.id))

    def owns(self, row: ModelRow) -> bool:
        """Whether the model's files are ours, and not in the user's own cache of the hub."""
        return Path(row.local_path).is_relative_to(self._models_dir)

    async def _checked(self, row: ModelRow | None) -> ModelRow | None:
        """Return the row; if one of its files is gone or cut short, delete the row and return None."""
        if row is None:
            return None
        files = await self._transact(partial(file_rows.stored, model_id=row.id))
        if await trio.to_thread.run_sync(folder.are_whole, files or [file_rows.StoredFile(Path(row.local_path), 0)]):
            return row
        log.warning("a file of model %s is gone or cut short, and so its row is gone", row.id)
        await self.forget(row)
        return None

    async def reconcile(self) -> None:
        """Add downloaded models that have no row, as after the database was made anew."""
        found = await trio.to_thread.run_sync(folder.find_models, self._models_dir / folder.HF_FOLDER)
        found += await trio.to_thread.run_sync(folder.find_pushed, self._models_dir / folder.FILE_FOLDER)
        known = {row.local_path for row in await self.all()}
        rebuilt = []
        for ref, path, files in found:
            if str(path) not in known:
                row = await self.add(ref, "" if ref.provider == "file" else ref.variant or path.name, path, files)
                rebuilt.append(row.id)
        if rebuilt:
            log.warning("the catalogue was rebuilt from the files on disk: %s", ", ".join(rebuilt))


def _are_same(known: Sequence[HubFile], files: Sequence[HubFile]) -> bool:
    """Whether these are the same files, as far as their hashes are known."""
    return [file[:2] for file in known] == [file[:2] for file in files] and all(
        None in (one.sha256, other.sha256) or one.sha256 == other.sha256
        for one, other in zip(known, files, strict=True)
    )
