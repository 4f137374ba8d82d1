"""Brings one model of the hub onto the disk: asks what there is, chooses, looks for it here, and fetches the rest.

All of it blocks, and runs in a thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from rbee.adapters import fetch, host, hub, hub_cache
from rbee.adapters.web import BrokenError, Web
from rbee.errors import DownloadFailedError, InvalidRequestError, ModelNotFoundError
from rbee.hive import catalogue, variant
from rbee.wire.common import Narration
from rbee.wire.download import Downloading, Retrying, Verifying

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.hive.variant import Choice
    from rbee.wire.hub import HubFile, Repository
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import Told

    Tell = Callable[[Told], None]

SPEED_SECONDS: Final = 3.0
"""The speed that is told is that of so long a time."""
MEGABYTE: Final = 1_000_000


class Provided(NamedTuple):
    """A model on the disk: where its first file is, what it was chosen by, and all its files in order.

    `ref` is the reference that means this model for good.
    """

    ref: ModelRef
    path: Path
    variant: str
    files: list[HubFile]


class Provision:
    """One model on its way; `run` blocks, and `stop` ends it from another thread.

    `tell` is called in the thread that runs.
    """

    def __init__(self, ref: ModelRef, settings: Settings, tell: Tell) -> None:
        self._ref = ref
        self._settings = settings
        self._models_dir = settings.paths.models
        self._tell = tell
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._web: Web | None = None
        self._fetch: fetch.Fetch | None = None
        self._done_before = 0
        self._total = 0
        self._seen: deque[tuple[float, int]] = deque()

    def stop(self) -> None:
        """End it soon; what has come of a file stays for the next one."""
        with self._lock:
            self._stopped.set()
            if self._fetch is not None:
                self._fetch.stop()
            elif self._web is not None:
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
            found = self._ask(web)
            if isinstance(found, Provided):
                return found
            choice = variant.choose(self._ref, found.files)
            if (cached := hub_cache.find(found, choice.files)) is not None:
                self._say("cache", f"{self._ref} is in the Hugging Face cache of this node")
                return Provided(self._ref, cached[0], choice.variant, choice.files)
            return self._download(web, found, choice)

    def _ask(self, web: Web) -> Repository | Provided:
        """Return what the hub has; where it is out of reach, the model from the user's own cache of it."""
        delays = self._settings.timeouts.download_delays
        for attempt, delay in enumerate((*delays, None), 1):
            try:
                return hub.files(web, self._ref.reference)
            except BrokenError as exc:
                if attempt == 1 and not self._stopped.is_set() and (kept := self._from_cache(exc)) is not None:
                    return kept
                if self._stopped.is_set() or delay is None:
                    raise DownloadFailedError(
                        f"the hub could not be asked for {self._ref}: {exc}, after {attempt} attempts",
                        hint=f"look at the network of the node; {self._needing_no_hub()}",
                        attempts=attempt,
                        reason=str(exc),
                    ) from exc
                self._tell_retry(fetch.Retry(attempt + 1, len(delays) + 1, delay, str(exc)))
                self._stopped.wait(delay)
                self._check()
        raise AssertionError

    def _from_cache(self, reason: BrokenError) -> Provided | None:
        """Return the model as the user's own cache of the hub has it, by the rules that choose among the hub's files.

        Not what the hub would give where it means the only one there is: then its own name is what it is known by.
        """
        for repository in hub_cache.repositories(self._ref.reference):
            try:
                choice = variant.choose(self._ref, repository.files)
            except (ModelNotFoundError, InvalidRequestError):
                continue
            if (paths := hub_cache.find(repository, choice.files)) is not None:
                name = choice.files[0].name
                human = f"The hub is out of reach ({reason}); {name} is in the Hugging Face cache of this node"
                self._say("cache", human)
                is_sure = self._ref.variant is not None or choice.variant == variant.DEFAULT_VARIANT
                ref = self._ref if is_sure else self._ref._replace(variant=name)
                return Provided(ref, paths[0], choice.variant, choice.files)
        return None

    def _needing_no_hub(self) -> str:
        kept = {
            f"{self._ref.provider}:{self._ref.reference}/{files[0].name}"
            for repository in hub_cache.repositories(self._ref.reference)
            for files in variant.group(repository.files).values()
        }
        if kept:
            return f"its Hugging Face cache has {', '.join(sorted(kept))}, which needs no hub"
        return "models that are on it already need no hub"

    def _download(self, web: Web, repository: Repository, choice: Choice) -> Provided:
        folder = catalogue.folder_of(self._models_dir, repository.name)
        missing = [file for file in choice.files if not _is_there(folder / file.name, file)]
        self._total = choice.size
        self._done_before = choice.size - sum(file.size for file in missing)
        self._check_disk(folder, missing)
        if missing:
            site = urlsplit(hub.endpoint()).netloc
            self._say("download", f"Downloading {self._ref} ({choice.variant}, {_size(choice.size)}) from {site}")
        started = time.monotonic()
        hashes = {file.name: file.sha256 for file in choice.files}
        for file in missing:
            found = self._fetch_one(web, hub.address(repository, file.name), folder / file.name, file)
            hashes[file.name] = found or file.sha256
            self._done_before += file.size
        if missing:
            seconds = time.monotonic() - started
            self._say("download_complete", f"Downloaded {self._ref} in {seconds:.1f} s")
        files = [file._replace(sha256=hashes[file.name]) for file in choice.files]
        return Provided(self._ref, folder / files[0].name, choice.variant, files)

    def _fetch_one(self, web: Web, url: str, to: Path, file: HubFile) -> str | None:
        resource = fetch.Resource(url, file.size, file.sha256)
        job = fetch.Fetch(web, resource, to, self._settings.timeouts.download_delays, self._pass_on)
        with self._lock:
            self._check()
            self._fetch = job
        return job.run()

    def _check_disk(self, folder: Path, missing: list[HubFile]) -> None:
        """Raise InsufficientDiskError where what is still to come does not fit."""
        there = sum(min(file.size, _length(folder / f"{file.name}.part")) for file in missing)
        needed = sum(file.size for file in missing) - there
        available = host.disk(folder).available
        if needed > available:
            raise fetch.too_little(needed, available, str(self._ref))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise DownloadFailedError("the download was given up")

    def _pass_on(self, event: fetch.Step | fetch.Retry) -> None:
        match event:
            case fetch.Retry():
                self._tell_retry(event)
            case fetch.Step(is_verifying=True):
                self._tell(Verifying())
            case fetch.Step(bytes_done=done):
                done += self._done_before
                self._tell(Downloading(bytes_downloaded=done, bytes_total=self._total, speed_mbps=self._speed(done)))

    def _tell_retry(self, retry: fetch.Retry) -> None:
        self._seen.clear()
        self._tell(
            Retrying(
                attempt=retry.attempt,
                attempts=retry.attempts,
                delay_ms=round(retry.delay * 1000),
                message=retry.reason,
            )
        )

    def _speed(self, done: int) -> float:
        """Return the MB a second of the last few seconds, or of what there was of them."""
        now = time.monotonic()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > SPEED_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        return round((done - before) / (now - then) / MEGABYTE, 2) if now > then else 0.0

    def _say(self, action: str, human: str) -> None:
        self._tell(Narration(actor="model-provisioner", action=action, target=str(self._ref), human=human))


def _is_there(path: Path, file: HubFile) -> bool:
    """Whether a file is on the disk; it got its name only once it was verified."""
    return _length(path) == file.size and path.is_file()


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
