"""Turns a request for a worker into a spec: which file, on which device, with how much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.adapters.hardware import inventory
from rbee.hive.catalogue import folder
from rbee.hive.workers import context_fit, preflight
from rbee.hive.workers.record import WorkerSpec
from rbee.wire import model_kind, model_ref
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Settings
    from rbee.hive.catalogue.file_state import FileState
    from rbee.hive.models.library import Library
    from rbee.wire.gguf import ModelHeader
    from rbee.wire.hive import BackendDevices, SpawnRequest
    from rbee.wire.progress import Report


async def plan(request: SpawnRequest, settings: Settings, library: Library, report: Report) -> WorkerSpec:
    """Check everything that can be known before a process is started, and report the sizes.

    A model of the hub is fetched if it is not here. Raises InvalidRequestError, ModelNotFoundError,
    ModelLoadFailedError, BackendUnavailableError, DeviceOutOfRangeError, or why a model could not be fetched. Whether
    the memory is there is decided by the pool, which knows what else is starting.
    """
    ref = model_ref.parse(request.reference())
    backends = await trio.to_thread.run_sync(inventory.backends)
    placement = preflight.choose_device(backends, request.backend, request.device)
    async with library.provided(ref, report, request.sources) as located:
        # Before it is loaded; nothing where the file is just going, which its header says in words.
        files = await trio.to_thread.run_sync(folder.states_of, located.path)
        header = await library.headers.read(located.path)
    refusal = model_kind.refusal(header, located.path.name)
    if refusal is not None and header.kind != model_kind.TEXT:
        raise refusal
    slots = request.slots or settings.worker.slots
    beside = _beside(placement, settings)
    in_all = _all_memory(backends, placement, settings) - beside
    wish = context_fit.Wish(request.context, settings.worker.context, settings.worker.kv, request.longest or None)
    fitted = context_fit.fit(header, located.size, slots, in_all, wish)
    if fitted.note is not None:
        report(Narration(actor="rbee-hive", action="context", target=str(ref), human=fitted.note))
    spec = _spec(str(ref), str(located.path), placement, slots, fitted, header, located.size, files, beside)
    megabytes = f"{spec.memory / preflight.MEGABYTE:.0f} of {available_memory(spec) / preflight.MEGABYTE:.0f} MB"
    human = f"{spec.model_ref} takes {megabytes} of free {spec.resource.upper()}: {context_fit.in_words(spec)}"
    report(Narration(actor="rbee-hive", action="preflight", target=spec.model_ref, human=human))
    if refusal is not None:
        raise refusal
    return spec


def context_of(header: ModelHeader, file_bytes: int, settings: Settings) -> int:
    """Return how many tokens a request may have where a model is loaded without further wishes.

    Raises BackendUnavailableError, DeviceOutOfRangeError or ModelLoadFailedError.
    """
    backends = inventory.backends()
    placement = preflight.choose_device(backends, None, None)
    in_all = _all_memory(backends, placement, settings) - _beside(placement, settings)
    slots = settings.worker.slots
    wish = context_fit.Wish(configured=settings.worker.context, kv=settings.worker.kv)
    fitted = context_fit.fit(header, file_bytes, slots, in_all, wish)
    return context_fit.longest(fitted.tokens, slots, header.context_length)


def _all_memory(backends: Sequence[BackendDevices], placement: preflight.DeviceChoice, settings: Settings) -> int:
    """Return the bytes that a device has, or that all workers may have of it."""
    backend = next(backend for backend in backends if backend.name == placement.backend)
    found = backend.devices[placement.device].memory_total
    most = settings.hive.max_memory_bytes if placement.resource == "ram" else None
    return found if most is None else min(found, most)


def _beside(placement: preflight.DeviceChoice, settings: Settings) -> int:
    """Return the bytes of a device that a worker takes for what was computed, outside the context."""
    return settings.cache.ram_bytes or 0 if placement.resource == "ram" else 0


def _spec(
    ref: str,
    path: str,
    placement: preflight.DeviceChoice,
    slots: int,
    fitted: context_fit.ContextFit,
    header: ModelHeader,
    file_bytes: int,
    files: tuple[FileState, ...],
    beside: int,
) -> WorkerSpec:
    tokens, kv = fitted.tokens, fitted.kv
    per_token = (header.kv_bytes_per_token(kv) or 0) * slots
    needed = preflight.memory_needed(file_bytes, per_token, tokens) + header.fixed_cache_bytes(slots, tokens, kv)
    return WorkerSpec(
        ref,
        path,
        *placement,
        slots,
        tokens,
        needed + beside,
        per_token,
        files,
        kv=kv,
        trained=header.context_length,
        is_elastic=fitted.is_chosen,
        wished=fitted.wished,
        least=fitted.least,
    )


def available_memory(spec: WorkerSpec) -> int:
    """Return the bytes free now on the device of `spec`.

    Raises BackendUnavailableError or DeviceOutOfRangeError if it has gone since: a driver may lose a device.
    """
    if spec.resource == "ram":
        return inventory.memory().available
    backends = inventory.backends()
    preflight.choose_device(backends, spec.backend, spec.device)
    backend = next(backend for backend in backends if backend.name == spec.backend)
    return backend.devices[spec.device].memory_available
