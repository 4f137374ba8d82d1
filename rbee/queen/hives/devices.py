"""Which devices a node has, and how much memory is free on them (PURE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.wire.hive import BackendDevices

Devices = Mapping[str, Sequence[int | None]]
"""Backend → free bytes of each of its devices; None where that is not known."""


def devices_of(backends: Sequence[BackendDevices]) -> Devices:
    """Return the devices that a hive reports."""
    return {backend.name: [device.memory_available for device in backend.devices] for backend in backends}
