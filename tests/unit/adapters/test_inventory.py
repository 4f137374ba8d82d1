"""What this machine has, as `rbee detect` and the hive see it."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rbee.adapters.hardware import cgroups, inventory
from rbee.wire.hive import Space

GIB = 1024**3


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GiB, 6 of them available."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GIB, available=6 * GIB))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("limits", "total", "available"),
    [
        ([], 8 * GIB, 6 * GIB),
        ([(64 * GIB, 63 * GIB)], 8 * GIB, 6 * GIB),
        ([(4 * GIB, GIB)], 4 * GIB, GIB),
        ([(7 * GIB, 7 * GIB)], 7 * GIB, 6 * GIB),
        ([(4 * GIB, 3 * GIB), (2 * GIB, GIB)], 2 * GIB, GIB),
        ([(2 * GIB, 2 * GIB), (4 * GIB, GIB)], 2 * GIB, GIB),
    ],
)
def test_the_lowest_limit_holds(
    monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]], total: int, available: int
) -> None:
    spaces = [Space(total=limit, available=rest) for limit, rest in limits]
    monkeypatch.setattr(cgroups, "memory_limits", lambda: iter(spaces))
    space = inventory.memory()
    assert (space.total, space.available) == (total, available)


def test_this_machine_is_seen() -> None:
    (cpu, *_) = inventory.backends()
    assert cpu.name == "cpu"
    assert cpu.devices[0].index == 0
    assert 0 < cpu.devices[0].memory_available <= cpu.devices[0].memory_total
    assert inventory.processor().threads >= 1
    assert inventory.processor().cores >= 1


def test_memory_that_a_process_has_not_touched_is_seen() -> None:
    before = inventory.process_memory(os.getpid())
    size = 64 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        # The system may put a neighbour's area and this one together.
        assert inventory.process_memory(os.getpid()).untouched - before.untouched >= size - inventory.LARGE_AREA
        area.write(b"x" * (size // 2))
        found = inventory.process_memory(os.getpid())
        assert found.untouched - before.untouched == pytest.approx(size / 2, abs=2 * inventory.LARGE_AREA)
        assert found.own - before.own == pytest.approx(size / 2, abs=inventory.LARGE_AREA)
    assert inventory.process_memory(2**22 - 1) == inventory.ProcessMemory()


def test_the_disk_of_a_folder_that_cannot_be() -> None:
    assert inventory.disk(Path("/" + "x" * 300)).total > 0


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert inventory.disk(tmp_path / "a" / "b").total == inventory.disk(tmp_path).total > 0


class _NvmlError(Exception):
    pass


def driver(opened: list[bool], *, broken: bool = False) -> SimpleNamespace:
    """A driver with two GPUs, in the words of nvidia-ml-py; `opened` holds one entry while it is in use."""

    def start() -> None:
        if broken:
            raise _NvmlError
        opened.append(True)

    return SimpleNamespace(
        NVMLError=_NvmlError,
        nvmlInit=start,
        nvmlShutdown=opened.clear,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"GPU model {handle}",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=24 * GIB, free=20 * GIB),
    )


def engine_with(folder: Path, monkeypatch: pytest.MonkeyPatch, *backends: str) -> None:
    for backend in backends:
        (folder / "lib").mkdir(exist_ok=True)
        (folder / "lib" / f"libggml-{backend}.so").touch()
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)


def test_cuda_needs_engine_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    monkeypatch.setitem(sys.modules, "pynvml", driver(opened))
    engine_with(tmp_path, monkeypatch)
    assert [backend.name for backend in inventory.backends()] == ["cpu"]
    assert [device.name for device in inventory.gpus()] == ["GPU model 0", "GPU model 1"]
    assert opened == []

    engine_with(tmp_path, monkeypatch, "cuda")
    cuda = inventory.backends()[1]
    assert (cuda.name, len(cuda.devices)) == ("cuda", 2)
    assert cuda.devices[1].memory_available == 20 * GIB

    monkeypatch.setitem(sys.modules, "pynvml", driver(opened, broken=True))
    assert [backend.name for backend in inventory.backends()] == ["cpu"]


def test_no_nvml_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert inventory.gpus() == []
