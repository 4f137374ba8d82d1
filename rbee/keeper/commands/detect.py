"""`rbee detect`: shows this machine's processor, memory, disk, backends and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.hardware import inventory
from rbee.keeper.output import render
from rbee.keeper.output.result import Result

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.hive import Device, Space


def run(_options: Options, settings: Settings, _terminal: Terminal) -> Result:
    """Return processor, memory, disk and backends."""
    processor, memory, disk = inventory.processor(), inventory.memory(), inventory.disk(settings.paths.models)
    backends = inventory.backends()
    unused = [] if any(backend.name == inventory.CUDA for backend in backends) else inventory.gpus()
    rows = [
        (backend.name, device.index, device.name, render.size(device.memory_total), _free(device))
        for backend in backends
        for device in backend.devices
    ]
    facts = (
        ("Processor", f"{processor.model}, {render.plural(processor.cores, 'core')}, "
                      f"{render.plural(processor.threads, 'thread')}"),
        ("Memory", _space(memory)),
        ("Disk", f"{_space(disk)} (models in {settings.paths.models})"),
    )  # fmt: skip
    text = "\n".join(f"{name:<10} {value}" for name, value in facts)
    text += "\n\n" + render.table(("backend", "device", "name", "memory", "available"), rows)
    if unused:
        text += "\n\n" + "\n".join(_explain(device) for device in unused)
    return Result(
        data={
            "processor": msgspec.to_builtins(processor),
            "memory": msgspec.to_builtins(memory),
            "disk": msgspec.to_builtins(disk),
            "backends": msgspec.to_builtins(backends),
            "unused_gpus": msgspec.to_builtins(unused),
        },
        text=text,
    )


def _space(space: Space) -> str:
    return f"{render.size(space.total)}, {render.size(space.available)} available"


def _free(device: Device) -> str:
    return render.size(device.memory_available)


def _explain(device: Device) -> str:
    return (
        f"GPU {device.index}, {device.name} ({render.size(device.memory_total)}), is not used: "
        "this build of the engine has no CUDA backend."
    )
