"""Loads the model and makes its context in a thread, telling how far it is."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.errors import ModelLoadFailedError
from rbee.wire.worker import LoadingProgress
from rbee.worker.llama import cpu_threads, header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.wire.gguf import ModelHeader
    from rbee.worker.status.status import Status

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096
"""The most tokens a request may use unless the configuration says otherwise: longer contexts cost memory."""


class Options(NamedTuple):
    """What to load, for how many requests of how many tokens (None: as trained, at most 4096), on how many threads.

    None threads means as many as the model's size is worth. `memory` are the bytes that the hive reckons with.
    """

    path: Path
    backend: str
    device: int
    slots: int
    context: int | None
    threads: int | None
    memory: int = 0


class Loaded(NamedTuple):
    model: Model
    context: Context

    def close(self) -> None:
        self.context.close()
        self.model.close()


async def load(options: Options, status: Status) -> Loaded:
    """Load the model; `status` follows. Raises ModelLoadFailedError.

    Cancelling returns at once. The thread gives up between two tensors, but the first of them may come only after the
    whole file was read, minutes later: the process must then end without it (os._exit).
    """
    token = trio.lowlevel.current_trio_token()
    abort = threading.Event()

    def progressed(progress: LoadingProgress) -> None:
        token.run_sync_soon(status.set_loading, progress)

    def work() -> Loaded | ModelLoadFailedError:
        try:
            return _load(options, progressed, abort)
        except ModelLoadFailedError as exc:
            return exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_when_cancelled, abort)
        loaded = await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    if isinstance(loaded, ModelLoadFailedError):
        raise loaded
    return loaded


async def _set_when_cancelled(abort: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        abort.set()


class _Progress:
    """Turns llama.cpp's fraction into layers, telling only what changes."""

    def __init__(self, layers: int, megabytes: float) -> None:
        self._layers = layers
        self._megabytes = megabytes
        self.told = -1

    def at(self, fraction: float) -> LoadingProgress | None:
        loaded = min(self._layers, int(fraction * self._layers))
        if loaded == self.told:
            return None
        self.told = loaded
        return LoadingProgress(
            layers_loaded=loaded, layers_total=self._layers, vram_mb=round(fraction * self._megabytes, 1)
        )


def _load(options: Options, progressed: object, abort: threading.Event) -> Loaded:
    assert callable(progressed)
    found = header.read(options.path)
    progress = _Progress(found.block_count or 1, found.tensor_bytes / 1e6)

    def report(fraction: float) -> None:
        if (now := progress.at(fraction)) is not None:
            progressed(now)

    length = options.context or min(found.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    check_memory(options, found, length)
    report(0.0)
    model = Model(options.path, found, backend=options.backend, device=options.device, progress=report, abort=abort)
    try:
        threads = _threads(options.threads, model.size_bytes)
        context = Context(model, slots=options.slots, length=length, threads=threads)
    except BaseException:
        model.close()
        raise
    report(1.0)
    return Loaded(model, context)


def _threads(wanted: int | None, weights: int) -> int:
    if wanted is None:
        return cpu_threads.compute_threads(weights)
    if (possible := cpu_threads.at_most(wanted)) < wanted:
        log.warning("%d threads are set, and there are %d processors: %d threads compute", wanted, possible, possible)
    return possible


def check_memory(options: Options, found: ModelHeader, length: int) -> None:
    """Make the hive's check again: since then another one may have taken the memory.

    The system would grant it, and kill this process or its neighbours once it is written to.
    """
    needed = max(options.memory, (found.kv_bytes_per_token() or 0) * options.slots * length)
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


def _available(options: Options) -> tuple[str, int]:
    """Return what memory the model would take, and how many bytes of it there are."""
    # psutil is imported with it: not before the hive has been told.
    from rbee.adapters.hardware import inventory

    if options.backend == inventory.CPU:
        return (
            "ram",
            inventory.memory().available + inventory.own_memory(),
        )  # what this process has is part of what it needs
    devices = [
        device for backend in inventory.backends() if backend.name == options.backend for device in backend.devices
    ]
    if options.device >= len(devices):
        raise ModelLoadFailedError(f"there is no device {options.backend}:{options.device} any more", reason="backend")
    return "vram", devices[options.device].memory_available
