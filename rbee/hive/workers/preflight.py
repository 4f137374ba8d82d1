"""Decides whether a model can run here, and on what: memory, backend, device (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import BackendUnavailableError, DeviceOutOfRangeError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.hive.workers.record import Resource
    from rbee.wire.hive import BackendDevices

OVERHEAD: Final = 1.2
"""Weights take their file's size, and compute buffers about a fifth of it more."""
MEGABYTE: Final = 1_000_000
SHORTEST_CONTEXT: Final = 256
"""Tokens; below that there is hardly room for a prompt and an answer."""
CONTEXT_STEP: Final = 64
PREFERRED: Final = ("cuda", "metal", "vulkan", "cpu")


class DeviceChoice(NamedTuple):
    """The device for a worker; `resource` is where its memory comes from."""

    backend: str
    device: int
    resource: Resource


def memory_needed(file_bytes: int, kv_bytes_per_token: int, tokens: int) -> int:
    """Return the bytes a worker will use: file × 1.2 plus the KV cache of `tokens` tokens, over all its slots."""
    return int(file_bytes * OVERHEAD) + kv_bytes_per_token * tokens


def choose_device(backends: Sequence[BackendDevices], backend: str | None, device: int | None) -> DeviceChoice:
    """Return where to run: as requested, else on the first device of the best backend.

    Raises BackendUnavailableError or DeviceOutOfRangeError naming the alternatives.
    """
    available = {found.name: found for found in backends}
    name = backend or next((found for found in PREFERRED if found in available), "cpu")
    if name not in available:
        names = ", ".join(sorted(available)) or "none"
        raise BackendUnavailableError(
            f"there is no backend {name} here; available: {names}", backend=name, available=sorted(available)
        )
    count = len(available[name].devices)
    index = device or 0
    if index >= count:
        raise DeviceOutOfRangeError(
            f"there is no device {index} of backend {name} here; it has {count}, counted from 0",
            asked=index,
            available=count,
        )
    return DeviceChoice(name, index, "ram" if name == "cpu" else "vram")


def check_memory(
    needed: int,
    available: int,
    resource: Resource,
    *,
    context: int | None = None,
    cache_per_token: int = 0,
    held: int = 0,
    allowed: int | None = None,
) -> None:
    """Raise OutOfMemoryError, with both numbers in MB, when `needed` bytes do not fit.

    If the model fits with a context shorter than `context`, of which each token takes `cache_per_token` bytes, the hint
    names the longest. `held` is what other workers there take, who have made no room: if the model fitted without them,
    the message says so. `allowed` is `[hive] max_memory`, where that and not the machine is the limit.
    """
    if needed <= available:
        return
    # Below zero if workers that are starting will take more than is left.
    required_mb, available_mb = -(-needed // MEGABYTE), max(0, available // MEGABYTE)
    longest = _longest_context(needed, available, context, cache_per_token)
    details = {} if longest is None else {"longest_context": longest}
    message = f"the model needs {required_mb} MB of {resource.upper()}, and {available_mb} MB are available"
    if held and needed <= available + held:
        details["held"] = held // MEGABYTE
        message += f", beside workers that take {details['held']} MB and have requests, or load"
    if allowed is not None:
        message += f"; `max_memory` under [hive] allows {allowed // MEGABYTE} MB to all workers"
    raise OutOfMemoryError(
        message,
        hint=None
        if longest is None
        else f"it fits with a context of {longest} tokens instead of {context} (`context` under [worker]), "
        "with fewer slots, or in a smaller quantisation",
        required=required_mb,
        available=available_mb,
        resource=resource,
        **details,
    )


def _longest_context(needed: int, available: int, context: int | None, cache_per_token: int) -> int | None:
    """Return the longest context with which the model fits, or None if that is too short to be of use."""
    if context is None or cache_per_token <= 0:
        return None
    without = needed - context * cache_per_token
    longest = (available - without) // cache_per_token
    return longest // CONTEXT_STEP * CONTEXT_STEP if longest >= SHORTEST_CONTEXT else None
