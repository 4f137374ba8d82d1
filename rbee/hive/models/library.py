"""The models of this node: those that ship with rbee, files of the user, and those of the hub."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.adapters.files import sha256 as hashing
from rbee.adapters.files import silent_disk
from rbee.concurrency.contained import contained
from rbee.errors import InvalidRequestError, ModelInUseError, ModelNotFoundError, StorageError
from rbee.hive.catalogue import file_state, folder, locate
from rbee.hive.catalogue.headers import Headers
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.provision import Provision
from rbee.hive.models.push import PushedModels
from rbee.wire import model_ref
from rbee.wire.model_copy import FileStat, OfferedFile, OfferedModel, Offers
from rbee.wire.models import ModelDetails

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from rbee.adapters.config import Settings
    from rbee.hive.catalogue.catalogue import Catalogue
    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.models import ModelRow
    from rbee.wire.progress import ProgressEvent, Report


log = logging.getLogger(__name__)


class Located(NamedTuple):
    """A model on the disk: its first file, and the size of all of them."""

    path: Path
    size: int


class Library:
    """The models of one node; the keys for copying files from other nodes come from the swarm's `token`."""

    def __init__(self, settings: Settings, catalogue: Catalogue, token: str) -> None:
        self._settings = settings
        self._token = token
        self.catalogue = catalogue
        self.downloads = Downloads(self._download)
        self._limiter = trio.CapacityLimiter(8)
        self.pushed = PushedModels(settings.paths.models, catalogue, trio.CapacityLimiter(4))
        self.headers = Headers()
        self._in_use: Counter[str] = Counter()

    @asynccontextmanager
    async def provided(self, ref: ModelRef, report: Report, sources: Sequence[Source]) -> AsyncIterator[Located]:
        """Yield a model's file, which `remove` spares within the block, where a worker is about to use it.

        A model of the hub is fetched if it is not here; `sources` are the nodes that may have it. So is a user's own
        file, if there are sources. Raises ModelNotFoundError, or why it could not be fetched.
        """
        if ref.provider != "hf" and not sources and await self.find(ref) is None:
            located = await trio.to_thread.run_sync(_measured, locate.locate(ref))
            with self._using(str(located.path)):
                yield located
            return
        while True:
            row = await self.obtain(ref, report, sources)
            with self._using(row.local_path):
                # Re-check the row: remove() deletes it in the same step in which it checks for users.
                if await self.catalogue.has(row):
                    await self.catalogue.note_use(row)
                    yield Located(Path(row.local_path), row.size_bytes)
                    return

    async def obtain(self, ref: ModelRef, report: Report, sources: Sequence[Source]) -> ModelRow:
        """Return a model, fetched if it is not here, with progress reported meanwhile.

        Sources of a user's own file have it as it is now: one that is here as well is compared with theirs.
        """
        row = None if ref.provider == "file" and sources else await self.find(ref)
        return row or await self.downloads.get(ref, report, sources)

    async def find(self, ref: ModelRef) -> ModelRow | None:
        """Return the model of the catalogue that `ref` means.

        That of a user's own file is a copy that was sent here; a file that has come to its path since is meant instead.
        """
        row = await self.catalogue.find(ref)
        if row is None or ref.provider != "file":
            return row
        changed_at = await silent_disk.look(file_state.changed_at, ref.reference)
        return row if changed_at is None or changed_at <= row.downloaded_at_unix else None

    async def path_of(self, ref: ModelRef) -> str:
        """Return where a user's own file is: a copy that was sent here, or the path itself."""
        row = await self.find(ref)
        return row.local_path if row is not None else ref.reference

    async def offers(self, ref: ModelRef) -> Offers:
        """Return what other nodes may copy of the repository of `ref`: models whose hashes are all known."""
        if ref.provider == "builtin":
            return Offers(is_here=False, models=[])
        named = await self.find(ref)
        models = []
        for row, files in await self.catalogue.of_repository(ref):
            offered = [
                OfferedFile(name=file.name, size_bytes=file.size, sha256=file.sha256)
                for file in files
                if file.sha256 is not None
            ]
            if offered and len(offered) == len(files):
                is_meant = named is not None and row.id == named.id
                variant = row.variant or offered[0].name
                models.append(OfferedModel(variant=variant, is_meant=is_meant, files=offered))
        file = await trio.to_thread.run_sync(_stat, ref, named) if ref.provider == "file" else None
        return Offers(is_here=named is not None or file is not None, models=models, file=file)

    async def hash_files(self) -> None:
        """Compute the hashes that a rebuilt catalogue lacks: without them other nodes cannot copy its models.

        One file after another, in a thread; the next hive tries again what fails.
        """
        for file in await self.catalogue.without_hash():
            work = partial(hashing.of_file, file.path, trio.from_thread.check_cancelled)
            with contained(f"the hash of {file.path.name}"):
                try:
                    sha256, size = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
                    if size == file.size:
                        await self.catalogue.note_hash(file, sha256)
                except (OSError, StorageError) as exc:
                    log.warning("the hash of %s is not known: %s", file.path.name, exc)

    @contextmanager
    def _using(self, path: str) -> Iterator[None]:
        self._in_use[path] += 1
        try:
            yield
        finally:
            self._in_use[path] -= 1
            if not self._in_use[path]:
                del self._in_use[path]

    async def show(self, text: str) -> ModelDetails:
        """Describe a model that is here, by its reference or its id. Raises ModelNotFoundError; fetches nothing."""
        row: ModelRow | None = None
        try:
            ref = model_ref.parse(text)
        except InvalidRequestError:
            with suppress(ModelNotFoundError):
                row = await self.catalogue.by_id(text)
            if row is None:
                raise
            located = Located(Path(row.local_path), row.size_bytes)
        else:
            if (row := await self.find(ref)) is not None:
                located = Located(Path(row.local_path), row.size_bytes)
            elif ref.provider == "hf":
                raise ModelNotFoundError(
                    f"{ref} is not on this node",
                    hint=f"`rbee models pull {model_ref.quoted(ref)}` fetches it",
                    model=str(ref),
                )
            else:
                located = await trio.to_thread.run_sync(_measured, locate.locate(ref))
            text = str(ref)
        header = await self.headers.read(located.path)
        return ModelDetails(
            model_ref=row.model_ref if row is not None else text,
            local_path=str(located.path),
            size_bytes=located.size,
            model=row,
            header=header,
        )

    async def remove(self, model_id: str, used_by: Callable[[ModelRow], Awaitable[list[str]]]) -> ModelRow:
        """Remove a model's row, and its files where they are ours.

        `used_by` names the workers that have it. Raises ModelNotFoundError or ModelInUseError.
        """
        row = await self.catalogue.by_id(model_id)
        # Checked before as well: a start planned now may have become a worker while the workers were asked for.
        is_starting = bool(self._in_use[row.local_path])
        workers = await used_by(row)
        if workers or is_starting or self._in_use[row.local_path]:
            raise ModelInUseError(
                f"model {model_id} is in use" + (f" by worker {', '.join(workers)}" if workers else ""), workers=workers
            )
        await self.catalogue.forget(row)
        if self.catalogue.owns(row):
            await trio.to_thread.run_sync(folder.remove, self._settings.paths.models, Path(row.local_path))
        log.info("model %s was removed", model_id)
        return row

    async def _download(self, ref: ModelRef, report: Report, sources: Sequence[Source]) -> ModelRow:
        """Fetch a model and add it to the catalogue; when cancelled, its thread ends by itself soon after."""
        token = trio.lowlevel.current_trio_token()

        def report_here(event: ProgressEvent) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(report, event)

        known = {
            file.name: file.sha256
            for row, files in await self.catalogue.of_repository(ref)
            if self.catalogue.owns(row)
            for file in files
            if file.sha256 is not None
        }
        job = Provision(ref, self._settings, report_here, sources, self._token, known)
        try:
            provided = await trio.to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            job.stop()
        log.info("%s is here: %s, %d bytes", ref, provided.path.name, sum(file.size for file in provided.files))
        if (row := await self.catalogue.of_files(provided.ref, provided.path, provided.files)) is not None:
            return row
        return await self.catalogue.add(provided.ref, provided.variant, provided.path, provided.files)


def _stat(ref: ModelRef, row: ModelRow | None) -> FileStat | None:
    """Return size and time of the files that a worker would load."""
    try:
        first = Path(row.local_path if row is not None else ref.reference)
        found = [path.stat() for path in folder.paths_of(first)]
    except OSError:
        return None
    return FileStat(size_bytes=sum(one.st_size for one in found), modified_ns=max(one.st_mtime_ns for one in found))


def _measured(path: Path) -> Located:
    return Located(path, sum(part.stat().st_size for part in folder.paths_of(path)))
