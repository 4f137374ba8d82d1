"""Describes this machine: processor, memory, disk, and the backends that the engine can use."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import psutil

from rbee.adapters.hardware import cgroups
from rbee.errors import StorageError
from rbee.wire.hive import BackendDevices, Device, Space

if TYPE_CHECKING:
    from types import ModuleType

CPU: Final = "cpu"
CUDA: Final = "cuda"
LARGE_AREA: Final = 16_000_000
"""Bytes of an area of memory above which it is the context of a model, or the like."""


class Processor(msgspec.Struct):
    """`cores` counts physical ones, `threads` the logical ones that this process may use."""

    model: str
    cores: int
    threads: int


def processor() -> Processor:
    threads = len(os.sched_getaffinity(0))
    return Processor(_processor_model(), psutil.cpu_count(logical=False) or threads, threads)


def _processor_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return "unknown processor"


def memory() -> Space:
    """Return the memory that this process may use: the machine's, or less where a control group limits it."""
    machine = psutil.virtual_memory()
    space = Space(total=machine.total, available=machine.available)
    for limit in cgroups.memory_limits():
        if limit.total < machine.total:
            space.total = min(space.total, limit.total)
            space.available = min(space.available, limit.available)
    return space


class ProcessMemory(NamedTuple):
    """Bytes: of its own, of files that are mapped, and of its own that it has not touched yet.

    The kernel counts the latter two as available.
    """

    own: int = 0
    mapped: int = 0
    untouched: int = 0


def process_memory(pid: int) -> ProcessMemory:
    """Return the memory of a process; zeros for one that is gone."""
    try:
        process = psutil.Process(pid)
        found = process.memory_info()
        areas = process.memory_maps(grouped=False)
    except (psutil.Error, OSError):
        return ProcessMemory()
    # Smaller areas are stacks and the like, which are never filled.
    large = (area for area in areas if area.path == "[anon]" and area.perms == "rw-p" and area.size >= LARGE_AREA)
    untouched = sum(area.size - area.rss for area in large)
    return ProcessMemory(int(found.rss - found.shared), int(found.shared), int(untouched))


def own_memory() -> int:
    """Return the bytes of memory that this process has now."""
    return int(psutil.Process().memory_info().rss)


def disk(path: Path) -> Space:
    """Return the space of the file system that holds `path`, or will hold it once it is made."""
    # Not Path.exists, which raises for a folder that is closed to us.
    folder = next((parent for parent in (path, *path.parents) if os.path.exists(parent)), Path("/"))  # noqa: PTH110
    try:
        usage = psutil.disk_usage(str(folder))
    except OSError as exc:
        raise StorageError(f"the disk of the models folder cannot be looked at: {exc.strerror}") from exc
    return Space(total=usage.total, available=usage.free)


def backends() -> list[BackendDevices]:
    """Return the backends that a worker here can use: the processor, and GPUs that both engine and driver support."""
    space = memory()
    here = Device(index=0, name=_processor_model(), memory_total=space.total, memory_available=space.available)
    found = [BackendDevices(name=CPU, devices=[here])]
    if engine_has(CUDA) and (devices := gpus()):
        found.append(BackendDevices(name=CUDA, devices=devices))
    return found


def engine_has(backend: str) -> bool:
    """Whether the engine's libraries include a backend. Checks for its file; loads nothing."""
    # For a top-level package find_spec imports nothing.
    spec = importlib.util.find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec is not None else None
    return any((Path(folder) / "lib" / f"libggml-{backend}.so").exists() for folder in folders or ())


def gpus() -> list[Device]:
    """Return the NVIDIA GPUs that the driver shows; none where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: ModuleType, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    space = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(index=index, name=str(name), memory_total=int(space.total), memory_available=int(space.free))
