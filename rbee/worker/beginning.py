"""Begins what needs nothing of trio: settings, the log, and the thread that is to load the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters import config
from rbee.adapters.logs import json_log
from rbee.worker.llama.load_thread import LoadOptions, LoadThread

if TYPE_CHECKING:
    import argparse

    from rbee.adapters.config import Settings

ROLE: Final = "llm-worker-rbee"


class Begun(NamedTuple):
    """What a worker has begun with."""

    settings: Settings
    thread: LoadThread


def begin(options: argparse.Namespace) -> Begun:
    """Begin; `options` are those of the command line.

    Raises InvalidConfigurationError, and StorageError where there can be no log.
    """
    flags = {
        "worker": {
            "slots": options.slots,
            "context": options.context,
            "threads": options.threads,
            "port_from": options.port_from,
        }
    }
    settings = config.load(flags, file=options.config)
    if options.log is not None:
        json_log.to_file(ROLE, options.log, settings.logs.max_bytes)
    worker = settings.worker
    thread = LoadThread(
        LoadOptions(
            path=options.model_path,
            backend=options.backend,
            device=options.device,
            slots=worker.slots,
            context=worker.context,
            threads=worker.threads,
            memory=options.memory,
            longest=options.longest,
            kv=options.kv,
        )
    )
    return Begun(settings, thread)
