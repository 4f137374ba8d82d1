"""Decides where a model of the hub comes from: this node's disk or Hugging Face cache, other nodes, or the hub.

The hub lists the files of the model; if it is unreachable, another node or the user's cache does. All of it
blocks, and runs in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rbee.adapters.download import fetch, hub, hub_cache
from rbee.adapters.download.web import Web, host_and_port
from rbee.adapters.download.web_errors import BrokenError, OfflineError
from rbee.errors import DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError
from rbee.hive.catalogue import folder, peer_offers, user_cache, variant
from rbee.hive.models.progress import ProgressReporter
from rbee.hive.models.stop import StopSignal
from rbee.hive.models.transfer import HubSite, Transfer
from rbee.wire.hub import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.hive.catalogue.variant import ChosenModel
    from rbee.wire.hub import HubFile
    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import Report


class ProvidedModel(NamedTuple):
    """A model on the disk: its first file, the variant it was chosen by, and all its files in order.

    `ref` is the reference that means this model for good.
    """

    ref: ModelRef
    path: Path
    variant: str
    files: list[HubFile]


class Provision:
    """Provides one model; `run` blocks, and `stop` ends it from another thread.

    `report` is called in the thread that runs. The other arguments are those of `Transfer`.
    """

    def __init__(
        self,
        ref: ModelRef,
        settings: Settings,
        report: Report,
        sources: Sequence[Source],
        token: str,
        known: Mapping[str, str],
    ) -> None:
        self._ref = ref
        self._settings = settings
        self._folder = folder.folder_of(settings.paths.models, ref)
        self._reporter = ProgressReporter(str(ref), report)
        self._sources = sources
        self._stop = StopSignal()
        self._transfer = Transfer(
            ref, self._folder, settings.timeouts, self._reporter, self._stop, list(sources), token, known
        )

    def stop(self) -> None:
        """End it soon; partial files stay for the next attempt."""
        self._stop.stop()

    def run(self) -> ProvidedModel:
        """Return the model once it is complete and verified.

        Raises what the hub refuses with, DownloadFailedError, ChecksumMismatchError, InsufficientDiskError,
        InvalidRequestError (an ambiguous reference) or StorageError.
        """
        if self._ref.provider != "hf":
            return self._from_nodes()
        web = Web(
            hub.endpoint(),
            hub.token(),
            may_be_private=self._settings.hub.private_redirects,
            stall=self._settings.timeouts.download_stall,
        )
        with web, self._stop.calling(web.abandon):
            return self._provide(web)

    def _provide(self, web: Web) -> ProvidedModel:
        if (offered := peer_offers.find(self._ref, self._sources)) is None:
            return self._from_hub(web)
        try:
            choice, site = self._ask_hub(web)
        except (BrokenError, DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError) as exc:
            self._stop.check()
            self._reporter.narrate("hub_silent", f"The hub does not give {self._ref} ({exc}); another node has it")
            try:
                return self._bring(offered, None)
            except DownloadFailedError:
                self._stop.check()
                return self._from_hub(web)
        return self._bring(choice, site)

    def _from_nodes(self) -> ProvidedModel:
        """Return a user's own file, which no hub has."""
        if (offered := peer_offers.find(self._ref, self._sources)) is None:
            raise ModelNotFoundError(f"no node gives {self._ref}", model=str(self._ref))
        files = self._transfer.bring(offered, None)
        return ProvidedModel(self._ref, self._folder / files[0].name, "", files)

    def _from_hub(self, web: Web) -> ProvidedModel:
        """Return the model that the hub names; while it is unreachable, the one in the user's cache of it."""
        delays = self._settings.timeouts.download_delays
        attempt = 0
        while True:
            attempt += 1
            try:
                choice, site = self._ask_hub(web)
            except BrokenError as exc:
                self._stop.check()
                if attempt == 1 and (cached := user_cache.find(self._ref)) is not None:
                    name = cached.choice.files[0].name
                    human = f"The hub is out of reach ({exc}); {name} is in the Hugging Face cache of this node"
                    self._reporter.narrate("cache", human)
                    return ProvidedModel(cached.ref, cached.path, cached.choice.variant, cached.choice.files)
                if isinstance(exc, OfflineError):
                    raise DownloadFailedError(
                        f"{self._ref} is not on this node, and the hub is not asked: {exc} there",
                        hint=f"to have it fetched, end rbee there, unset that, and start it again; "
                        f"{user_cache.advice(self._ref)}",
                    ) from exc
                if attempt > len(delays):
                    raise DownloadFailedError(
                        f"the hub could not be asked for {self._ref}: {exc}, after {attempt} attempts",
                        hint=f"look at the network of the node; {user_cache.advice(self._ref)}",
                        attempts=attempt,
                        reason=str(exc),
                    ) from exc
                pause = max(delays[attempt - 1], exc.after)
                self._reporter.on_fetch(fetch.Retry(attempt + 1, len(delays) + 1, pause, str(exc)))
                self._stop.sleep(pause)
            else:
                return self._bring(choice, site)

    def _ask_hub(self, web: Web) -> tuple[ChosenModel, HubSite]:
        """Return what the hub has, and the files chosen. Raises BrokenError where another attempt may succeed."""
        if (variable := hub.offline()) is not None:
            raise OfflineError(f"{variable} is set")
        repository = hub.files(web, self._ref.reference)
        choice = variant.choose(self._ref, repository.files)
        if unknown := [file.name for file in choice.files if file.size <= 0]:
            # Else an empty file would be complete at once.
            raise DownloadFailedError(
                f"{host_and_port(urlsplit(hub.endpoint()))} does not say how large {unknown[0]} is"
            )
        return choice, HubSite(web, repository)

    def _bring(self, choice: ChosenModel, site: HubSite | None) -> ProvidedModel:
        repository = site.repository if site is not None else Repository(self._ref.reference, "main", choice.files)
        if (cached := hub_cache.find(repository, choice.files)) is not None:
            self._reporter.narrate("cache", f"{self._ref} is in the Hugging Face cache of this node")
            return ProvidedModel(self._ref, cached[0], choice.variant, choice.files)
        files = self._transfer.bring(choice, site)
        return ProvidedModel(self._ref, self._folder / files[0].name, choice.variant, files)
