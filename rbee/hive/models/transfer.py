"""Brings the files of one model onto the disk: from the nodes that have them, else from the hub.

A file that another node has is copied from there; if that fails, the next node or the hub goes on where it ended. All
of it blocks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rbee.adapters import tokens
from rbee.adapters.download import fetch, hub
from rbee.adapters.download.web import Web, host_and_port
from rbee.adapters.hardware import inventory
from rbee.errors import ChecksumMismatchError, DownloadFailedError
from rbee.hive.catalogue import peer_offers
from rbee.hive.models.early_look import EarlyLook
from rbee.wire.model_copy import CONTENT
from rbee.wire.model_push import MAGIC
from rbee.wire.progress import size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rbee.adapters.config import Timeouts
    from rbee.hive.catalogue.variant import ChosenModel
    from rbee.hive.models.progress import ProgressReporter
    from rbee.hive.models.stop import StopSignal
    from rbee.wire.hub import HubFile, Repository
    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef


class HubSite(NamedTuple):
    """The hub, and its answer about a repository."""

    web: Web
    repository: Repository

    @property
    def name(self) -> str:
        return host_and_port(urlsplit(hub.endpoint()))


@dataclass
class Transfer:
    """Brings the files of `ref` into `folder`.

    `sources` are the nodes that may have them, the best first; those that fail are dropped. The keys for copying come
    from the swarm's `token`. `known` gives the hashes of the repository's files that are on the disk.
    """

    ref: ModelRef
    folder: Path
    limits: Timeouts
    reporter: ProgressReporter
    stop: StopSignal
    sources: list[Source]
    token: str
    known: Mapping[str, str]
    _senders: list[str] = field(default_factory=list, init=False)

    def bring(self, choice: ChosenModel, site: HubSite | None) -> list[HubFile]:
        """Return the files of `choice` with their hashes, once all are on the disk; without `site`, from nodes alone.

        Raises DownloadFailedError, ChecksumMismatchError, InsufficientDiskError, StorageError, what the hub refuses
        with, or ModelLoadFailedError where this node could do nothing with the model.
        """
        missing = [file for file in choice.files if not self._is_there(file)]
        self.reporter.total = choice.size
        self.reporter.done_before = choice.size - sum(file.size for file in missing)
        self._check_disk(missing)
        started = time.monotonic()
        hashes = {file.name: file.sha256 for file in choice.files}
        for file in missing:
            hashes[file.name] = self._bring_file(file, choice, site) or file.sha256
            self.reporter.done_before += file.size
        if missing:
            action = "Downloaded" if site is not None and site.name in self._senders else "Copied"
            seconds = time.monotonic() - started
            self.reporter.narrate("download_complete", f"{action} {self.ref} in {seconds:.1f} s")
        return [file._replace(sha256=hashes[file.name]) for file in choice.files]

    def _bring_file(self, file: HubFile, choice: ChosenModel, site: HubSite | None) -> str | None:
        """Return the hash of a file once it is there; None where somebody else put it there meanwhile."""
        for source in peer_offers.having(file, self.sources):
            try:
                return self._copy(source, file, choice, is_only_way=site is None)
            except (DownloadFailedError, ChecksumMismatchError) as exc:
                self.stop.check()
                self.sources.remove(source)
                is_other = isinstance(exc, ChecksumMismatchError)
                why = f"it sent other bytes than {file.name} has; they were removed" if is_other else exc.message
                self.reporter.narrate("copy_failed", f"Copying from {source.node} failed: {why}")
        if site is None:
            raise DownloadFailedError(f"no node gives {file.name}")
        self._narrate_sender("Downloading", site.name, file, choice)
        resource = fetch.Resource(hub.address(site.repository, file.name), file.size, file.sha256, magic=MAGIC)
        to, report = self.folder / file.name, self._report_for(file, choice)
        return self._run(fetch.Fetch(site.web, resource, to, self.limits.download_delays, report))

    def _copy(self, source: Source, file: HubFile, choice: ChosenModel, *, is_only_way: bool) -> str | None:
        assert file.sha256 is not None
        self._narrate_sender("Copying", source.node, file, choice)
        # The key, and not the token: another machine may answer at that URL by now.
        key = tokens.content_key(self.token, file.sha256)
        url = f"{source.url.rstrip('/')}{CONTENT}{file.sha256}"
        resource = fetch.Resource(url, file.size, file.sha256, f'"{file.sha256}"', MAGIC)
        delays = self.limits.download_delays if is_only_way else self.limits.download_delays[:1]
        with Web(source.url, key, stall=self.limits.copy_stall, is_near=True) as web:
            report = self._report_for(file, choice)
            return self._run(fetch.Fetch(web, resource, self.folder / file.name, delays, report, tries=1))

    def _report_for(self, file: HubFile, choice: ChosenModel) -> Callable[[fetch.Step | fetch.Retry], None]:
        """Return what takes the progress of a file; the first of a model is looked at as soon as its header is here."""
        if file.name != choice.files[0].name:
            return self.reporter.on_fetch
        return EarlyLook(self.folder / file.name, file.size, self.reporter.on_fetch).on_fetch

    def _run(self, job: fetch.Fetch) -> str | None:
        with self.stop.calling(job.stop):
            return job.run()

    def _narrate_sender(self, verb: str, sender: str, file: HubFile, choice: ChosenModel) -> None:
        """Report where the next bytes come from, unless the last ones came from there too."""
        if sender in self._senders[-1:]:
            return
        is_rest = self._senders and self.reporter.done_before + self._partial_length(file)
        what = f"the rest of {self.ref}" if is_rest else f"{self.ref} ({choice.variant}, {size(choice.size)})"
        self._senders.append(sender)
        self.reporter.narrate("download" if verb == "Downloading" else "copy", f"{verb} {what} from {sender}")

    def _check_disk(self, missing: Sequence[HubFile]) -> None:
        """Raise InsufficientDiskError where the bytes still to come do not fit."""
        present = sum(min(file.size, self._partial_length(file)) for file in missing)
        needed = sum(file.size for file in missing) - present
        available = inventory.disk(self.folder).available
        if needed > available:
            raise fetch.too_little(needed, available, str(self.ref))

    def _is_there(self, file: HubFile) -> bool:
        """Whether a file is on the disk; it got its name only once verified, but maybe as an older version."""
        path, known = self.folder / file.name, self.known.get(file.name)
        return _length(path) == file.size and path.is_file() and (None in (known, file.sha256) or known == file.sha256)

    def _partial_length(self, file: HubFile) -> int:
        path = self.folder / file.name
        return _length(path.with_name(f"{path.name}.part"))


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
