"""Brings one model of the hub onto the disk: asks what there is, chooses, looks for it here, and fetches the rest.

A file that another node has is copied from there; the hub says what it must be, and gives it where that fails. All of
it blocks, and runs in a thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rbee.adapters import tokens
from rbee.adapters.download import fetch, hub, hub_cache
from rbee.adapters.download.web import BrokenError, Web, host_and_port
from rbee.adapters.hardware import inventory
from rbee.errors import ChecksumMismatchError, DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError
from rbee.hive.catalogue import folder, peer_offers, user_cache, variant
from rbee.hive.models import progress
from rbee.hive.models.progress import Telling
from rbee.wire.hub import Repository
from rbee.wire.model_copy import CONTENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.hive.catalogue.variant import Choice
    from rbee.wire.hub import HubFile
    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import Report


class Provided(NamedTuple):
    """A model on the disk: where its first file is, what it was chosen by, and all its files in order.

    `ref` is the reference that means this model for good.
    """

    ref: ModelRef
    path: Path
    variant: str
    files: list[HubFile]


class _Hub(NamedTuple):
    """The hub, and what it has said."""

    web: Web
    repository: Repository
    choice: Choice

    @property
    def name(self) -> str:
        """What it is called in what is told."""
        return host_and_port(urlsplit(hub.endpoint()))


class Provision:
    """One model on its way; `run` blocks, and `stop` ends it from another thread.

    `tell` is called in the thread that runs. `sources` are the nodes that may have it, the best first; the keys of
    files come from the swarm's `token`. `known` gives the hashes of the repository's files that are on the disk.
    """

    def __init__(
        self,
        ref: ModelRef,
        settings: Settings,
        report: Report,
        sources: Sequence[Source],
        token: str,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self._ref = ref
        self._settings = settings
        self._models_dir = settings.paths.models
        self._telling = Telling(str(ref), report)
        self._sources = list(sources)
        self._token = token
        self._known = known or {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._web: Web | None = None
        self._fetch: fetch.Fetch | None = None
        self._places: list[str] = []

    def stop(self) -> None:
        """End it soon; what has come of a file stays for the next one."""
        with self._lock:
            self._stopped.set()
            if self._fetch is not None:
                self._fetch.stop()
            if self._web is not None:
                self._web.abandon()

    def run(self) -> Provided:
        """Return the model once it is whole and verified.

        Raises what the hub refuses with, DownloadFailedError, ChecksumMismatchError, InsufficientDiskError,
        InvalidRequestError (an ambiguous reference) or StorageError.
        """
        web = Web(
            hub.endpoint(),
            hub.token(),
            may_be_private=self._settings.hub.private_redirects,
            stall=self._settings.timeouts.download_stall,
        )
        with web:
            with self._lock:
                self._web = web
                self._check()
            return self._provide(web)

    def _provide(self, web: Web) -> Provided:
        if (known := peer_offers.meant(self._ref, self._sources)) is None:
            return self._from_hub(web)
        try:
            site = self._ask(web)
        except (BrokenError, DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError) as exc:
            self._check()
            self._telling.say("hub_silent", f"The hub does not give {self._ref} ({exc}); another node has it")
            try:
                return self._bring(known, None)
            except DownloadFailedError:
                self._check()
                return self._from_hub(web)
        return self._bring(site.choice, site)

    def _from_hub(self, web: Web) -> Provided:
        """Return the model that the hub says it is; where it is out of reach, that of the user's own cache of it."""
        delays = self._settings.timeouts.download_delays
        for attempt, delay in enumerate((*delays, None), 1):
            try:
                site = self._ask(web)
            except BrokenError as exc:
                self._check()
                if attempt == 1 and (kept := user_cache.find(self._ref)) is not None:
                    name = kept.choice.files[0].name
                    human = f"The hub is out of reach ({exc}); {name} is in the Hugging Face cache of this node"
                    self._telling.say("cache", human)
                    return Provided(kept.ref, kept.path, kept.choice.variant, kept.choice.files)
                if delay is None:
                    raise DownloadFailedError(
                        f"the hub could not be asked for {self._ref}: {exc}, after {attempt} attempts",
                        hint=f"look at the network of the node; {user_cache.advice(self._ref)}",
                        attempts=attempt,
                        reason=str(exc),
                    ) from exc
                pause = max(delay, exc.after)
                self._telling.pass_on(fetch.Retry(attempt + 1, len(delays) + 1, pause, str(exc)))
                self._stopped.wait(pause)
                self._check()
            else:
                return self._bring(site.choice, site)
        raise AssertionError

    def _ask(self, web: Web) -> _Hub:
        """Ask the hub what there is, and choose. Raises BrokenError where another attempt may mend it."""
        repository = hub.files(web, self._ref.reference)
        choice = variant.choose(self._ref, repository.files)
        if unknown := [file.name for file in choice.files if file.size <= 0]:
            # Else an empty file would be whole at once.
            raise DownloadFailedError(
                f"{host_and_port(urlsplit(hub.endpoint()))} does not say how large {unknown[0]} is"
            )
        return _Hub(web, repository, choice)

    def _bring(self, choice: Choice, site: _Hub | None) -> Provided:
        """Return the files of `choice`, fetched where they are not here; without `site`, from other nodes alone."""
        repository = site.repository if site is not None else Repository(self._ref.reference, "main", choice.files)
        if (kept := hub_cache.find(repository, choice.files)) is not None:
            self._telling.say("cache", f"{self._ref} is in the Hugging Face cache of this node")
            return Provided(self._ref, kept[0], choice.variant, choice.files)
        target = folder.folder_of(self._models_dir, self._ref.reference)
        missing = [file for file in choice.files if not self._is_there(target / file.name, file)]
        self._telling.total = choice.size
        self._telling.done_before = choice.size - sum(file.size for file in missing)
        self._check_disk(target, missing)
        started = time.monotonic()
        hashes = {file.name: file.sha256 for file in choice.files}
        for file in missing:
            found = self._fetch_one(file, target / file.name, choice, site)
            hashes[file.name] = found or file.sha256
            self._telling.done_before += file.size
        if missing:
            action = "Downloaded" if site is not None and site.name in self._places else "Copied"
            seconds = time.monotonic() - started
            self._telling.say("download_complete", f"{action} {self._ref} in {seconds:.1f} s")
        files = [file._replace(sha256=hashes[file.name]) for file in choice.files]
        return Provided(self._ref, target / files[0].name, choice.variant, files)

    def _fetch_one(self, file: HubFile, to: Path, choice: Choice, site: _Hub | None) -> str | None:
        """Bring a file from whoever has it, the hub at last, each going on where the one before has ended."""
        for source in peer_offers.having(file, self._sources):
            try:
                return self._copy(source, file, to, choice, is_all=site is None)
            except (DownloadFailedError, ChecksumMismatchError) as exc:
                self._check()
                self._sources.remove(source)
                is_other = isinstance(exc, ChecksumMismatchError)
                why = f"it sent other bytes than {file.name} has; they were removed" if is_other else exc.message
                self._telling.say("copy_failed", f"Copying from {source.node} failed: {why}")
        if site is None:
            raise DownloadFailedError(f"no node gives {file.name}")
        self._begin("Downloading", site.name, to, choice)
        resource = fetch.Resource(hub.address(site.repository, file.name), file.size, file.sha256)
        return self._run(fetch.Fetch(site.web, resource, to, self._settings.timeouts.download_delays, self._tell))

    def _copy(self, source: Source, file: HubFile, to: Path, choice: Choice, *, is_all: bool) -> str | None:
        """Copy a file from another node; with `is_all` there is nobody else who might give it."""
        assert file.sha256 is not None
        self._begin("Copying", source.node, to, choice)
        limits = self._settings.timeouts
        # The key, and not the token: whoever answers there may not be the node that was meant.
        key = tokens.content_key(self._token, file.sha256)
        url = f"{source.url.rstrip('/')}{CONTENT}{file.sha256}"
        resource = fetch.Resource(url, file.size, file.sha256, etag=f'"{file.sha256}"')
        delays = limits.download_delays if is_all else limits.download_delays[:1]
        with Web(source.url, key, stall=limits.copy_stall, is_near=True) as web:
            return self._run(fetch.Fetch(web, resource, to, delays, self._tell, tries=1))

    def _run(self, job: fetch.Fetch) -> str | None:
        with self._lock:
            self._check()
            self._fetch = job
        return job.run()

    def _tell(self, event: fetch.Step | fetch.Retry) -> None:
        self._telling.pass_on(event)

    def _begin(self, verb: str, place: str, to: Path, choice: Choice) -> None:
        """Say where the next bytes come from, unless that has been said."""
        if place in self._places[-1:]:
            return
        is_rest = self._places and self._telling.done_before + _length(_part(to))
        what = (
            f"the rest of {self._ref}" if is_rest else f"{self._ref} ({choice.variant}, {progress.size(choice.size)})"
        )
        self._places.append(place)
        self._telling.say("download" if verb == "Downloading" else "copy", f"{verb} {what} from {place}")

    def _check_disk(self, target: Path, missing: list[HubFile]) -> None:
        """Raise InsufficientDiskError where what is still to come does not fit."""
        there = sum(min(file.size, _length(_part(target / file.name))) for file in missing)
        needed = sum(file.size for file in missing) - there
        available = inventory.disk(target).available
        if needed > available:
            raise fetch.too_little(needed, available, str(self._ref))

    def _is_there(self, path: Path, file: HubFile) -> bool:
        """Whether a file is on the disk; it got its name only once it was verified, maybe as an older one."""
        known = self._known.get(file.name)
        return _length(path) == file.size and path.is_file() and (None in (known, file.sha256) or known == file.sha256)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise DownloadFailedError("the download was given up")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
