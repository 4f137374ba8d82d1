"""`rbee detect`: shows this machine's processor, memory, disk, backends and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.hardware import inventory
from rbee.adapters.hardware.inventory import Processor
from rbee.keeper.output import render, tables
from rbee.keeper.output.result import Result
from rbee.wire.hive import BackendDevices, Device, Space

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal


class Detected(msgspec.Struct):
    """What `--json` prints; the text is made from it."""

    processor: Processor
    memory: Space
    disk: Space
    backends: list[BackendDevices]
    unused_gpus: list[Device]


def run(_options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return processor, memory, disk, backends, and graphics cards that the engine cannot use."""
    backends = inventory.backends()
    detected = Detected(
        processor=inventory.processor(),
        memory=inventory.memory(),
        disk=inventory.disk(settings.paths.models),
        backends=backends,
        unused_gpus=[] if any(backend.name == inventory.CUDA for backend in backends) else inventory.gpus(),
    )
    return Result(data=msgspec.to_builtins(detected), text=_text(detected, settings, terminal.room))


def _text(detected: Detected, settings: Settings, room: int | None) -> str:
    processor = detected.processor
    cores, threads = render.plural(processor.cores, "core"), render.plural(processor.threads, "thread")
    devices = [
        (backend.name, device.index, device.name, render.size(device.memory_total), _free(device))
        for backend in detected.backends
        for device in backend.devices
    ]
    machine = {
        "Processor": f"{processor.model}, {cores}, {threads}",
        "Memory": _space(detected.memory),
        "Disk": f"{_space(detected.disk)} (models in {settings.paths.models})",
    }
    parts = [
        tables.fields(machine.items(), room),
        tables.table(("backend", "device", "name", "memory", "available"), devices, room),
        "\n".join(map(_explain, detected.unused_gpus)),
    ]
    return "\n\n".join(filter(None, parts))


def _space(space: Space) -> str:
    return f"{render.size(space.total)}, {render.size(space.available)} available"


def _free(device: Device) -> str:
    return render.size(device.memory_available)


def _explain(device: Device) -> str:
    return (
        f"GPU {device.index}, {device.name} ({render.size(device.memory_total)}), is not used: "
        "this build of the engine has no CUDA backend."
    )
