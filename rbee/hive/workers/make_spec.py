"""Turns a request for a worker into a spec: which file, on which device, with how much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.adapters.hardware import inventory
from rbee.hive.catalogue import folder
from rbee.hive.workers import preflight
from rbee.hive.workers.record import WorkerSpec
from rbee.wire import model_kind, model_ref
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.hive.models.library import Library
    from rbee.wire.hive import SpawnRequest
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
    context, note = preflight.choose_context(request.context, settings.worker.context, header.context_length)
    if note is not None:
        report(Narration(actor="rbee-hive", action="context", target=str(ref), human=note))
    cache_per_token = (header.kv_bytes_per_token() or 0) * slots
    needed = preflight.memory_needed(located.size, cache_per_token, context) + header.fixed_cache_bytes(slots, context)
    if placement.resource == "ram":
        needed += settings.cache.ram_bytes or 0
    spec = WorkerSpec(str(ref), str(located.path), *placement, slots, context, needed, cache_per_token, files)
    megabytes = f"{needed / preflight.MEGABYTE:.0f} of {available_memory(spec) / preflight.MEGABYTE:.0f} MB"
    human = f"{spec.model_ref} takes {megabytes} of free {spec.resource.upper()}"
    report(Narration(actor="rbee-hive", action="preflight", target=spec.model_ref, human=human))
    if refusal is not None:
        raise refusal
    return spec


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
