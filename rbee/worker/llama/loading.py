"""Loads the model and makes its context in a thread, with progress."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.concurrency.background import open_background
from rbee.errors import ModelLoadFailedError
from rbee.wire import model_kind
from rbee.wire.worker import LoadingProgress
from rbee.worker.llama import cpu_threads, header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rbee.wire.common import CacheType
    from rbee.wire.gguf import ModelHeader

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096
"""The most tokens a request may use where the hive does not say: it knows the memory."""


class LoadOptions(NamedTuple):
    """What to load, for how many requests of how many tokens (None: as trained, at most 4096), on how many threads.

    One request may have up to `longest` tokens where the others leave them. None threads means as many as the model's
    size is worth. `memory` are the bytes that the hive reckons with.
    """

    path: Path
    backend: str
    device: int
    slots: int
    context: int | None
    threads: int | None
    memory: int = 0
    longest: int | None = None
    kv: CacheType = "f16"


class LoadedModel(NamedTuple):
    """A model, and the context that serves it; close it."""

    model: Model
    context: Context

    def close(self) -> None:
        self.context.close()
        self.model.close()


async def load(options: LoadOptions, report: Callable[[LoadingProgress], None]) -> LoadedModel:
    """Load the model; `report` gets the progress, in trio's thread. Raises ModelLoadFailedError.

    Cancelling returns at once. The thread gives up between two tensors, but the first of them may come only after the
    whole file was read, minutes later: the process must then end without it (os._exit).
    """
    token = trio.lowlevel.current_trio_token()
    abort = threading.Event()

    def work() -> LoadedModel:
        return _load(options, lambda progress: token.run_sync_soon(report, progress), abort)

    async with open_background() as nursery:
        nursery.start_soon(_set_when_cancelled, abort)
        return await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)


async def _set_when_cancelled(abort: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        abort.set()


def _layers_of(model_header: ModelHeader, report: Callable[[LoadingProgress], None]) -> Callable[[float], None]:
    """Return what turns llama.cpp's fraction, from 0 to 1, into layers, and reports each layer once."""
    total, reported = model_header.block_count or 1, -1

    def at(fraction: float) -> None:
        nonlocal reported
        layers = min(total, int(fraction * total))
        if layers != reported:
            reported = layers
            megabytes = round(fraction * model_header.tensor_bytes / 1e6, 1)
            report(LoadingProgress(layers_loaded=layers, layers_total=total, vram_mb=megabytes))

    return at


def _load(options: LoadOptions, report: Callable[[LoadingProgress], None], abort: threading.Event) -> LoadedModel:
    model_header = header.read(options.path)
    if (refusal := model_kind.refusal(model_header, options.path.name)) is not None:
        raise refusal
    progress = _layers_of(model_header, report)
    length = options.context or min(model_header.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    check_memory(options, model_header, length)
    progress(0.0)
    model = Model(
        options.path, model_header, backend=options.backend, device=options.device, progress=progress, abort=abort
    )
    try:
        threads = _threads(options.threads, model.size_bytes)
        context = Context(
            model, slots=options.slots, length=length, threads=threads, longest=options.longest, kv=options.kv
        )
    except BaseException:
        model.close()
        raise
    progress(1.0)
    return LoadedModel(model, context)


def _threads(configured: int | None, weights: int) -> int:
    if configured is None:
        return cpu_threads.compute_threads(weights)
    if (possible := cpu_threads.at_most(configured)) < configured:
        log.warning(
            "%d threads are set, and there are %d processors: %d threads compute", configured, possible, possible
        )
    return possible


def check_memory(options: LoadOptions, model_header: ModelHeader, length: int) -> None:
    """Make the hive's check again: since then another worker may have taken the memory.

    The system would grant it, and kill this process or its neighbours once it is written to.
    """
    # The hive has asked the engine about the cache; without it the header alone says what that takes at least.
    needed = options.memory or (model_header.kv_bytes_per_token(options.kv) or 0) * options.slots * length
    resource, available = _available(options)
    if needed > available:
        raise ModelLoadFailedError(
            f"not enough memory for {options.path.name} with {options.slots} slots of {length} tokens: "
            f"{needed / 1e6:.0f} MB of {resource.upper()} needed, {available / 1e6:.0f} MB available",
            hint="use fewer slots, a smaller context, or a smaller quantisation",
            reason="out_of_memory",
            required=round(needed / 1e6),
            available=round(available / 1e6),
            resource=resource,
        )


def _available(options: LoadOptions) -> tuple[str, int]:
    """Return what memory the model would take, and how many bytes of it there are."""
    # psutil is imported with it: not before the callback to the hive.
    from rbee.adapters.hardware import inventory

    if options.backend == inventory.CPU:
        # What this process has is part of what it needs.
        return "ram", inventory.memory().available + inventory.own_memory()
    devices = [
        device for backend in inventory.backends() if backend.name == options.backend for device in backend.devices
    ]
    if options.device >= len(devices):
        raise ModelLoadFailedError(f"there is no device {options.backend}:{options.device} any more", reason="backend")
    return "vram", devices[options.device].memory_available
