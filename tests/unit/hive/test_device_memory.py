"""The memory of GPUs, as hive and worker check it: each device by itself, on a machine that seems to have some."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from rbee.errors import BackendUnavailableError, ModelLoadFailedError
from rbee.hive.workers import make_spec
from rbee.hive.workers.record import WorkerSpec
from rbee.wire.gguf import ModelHeader
from rbee.worker.llama import loading
from tests.unit.adapters.test_inventory import GIB, driver, engine_with

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

HEADER = ModelHeader(architecture="llama", parameters=1, tensor_bytes=1)


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An engine for CUDA, and a driver with two GPUs, of which the second has a quarter of the first one's memory."""
    found: Any = driver([])
    sizes = (20 * GIB, 5 * GIB)
    space = found.nvmlDeviceGetMemoryInfo(0)
    found.nvmlDeviceGetMemoryInfo = lambda index: type(space)(total=24 * GIB, free=sizes[index])
    monkeypatch.setitem(sys.modules, "pynvml", found)
    engine_with(tmp_path, monkeypatch, "cuda")
    return found


def spec(device: int) -> WorkerSpec:
    return WorkerSpec("hf:bees/m", "/m.gguf", "cuda", device, "vram", 1, 64, 6 * GIB)


def options(path: Path, device: int, memory: int) -> loading.LoadOptions:
    return loading.LoadOptions(path / "m.gguf", "cuda", device, 1, 64, 1, memory)


@pytest.mark.usefixtures("cuda")
def test_the_hive_checks_the_memory_of_the_chosen_device() -> None:
    assert [make_spec.available_memory(spec(device)) for device in (0, 1)] == [20 * GIB, 5 * GIB]


@pytest.mark.usefixtures("cuda")
def test_the_worker_makes_the_same_check_again(tmp_path: Path) -> None:
    loading.check_memory(options(tmp_path, 0, 6 * GIB), HEADER, 64)
    with pytest.raises(ModelLoadFailedError) as caught:
        loading.check_memory(options(tmp_path, 1, 6 * GIB), HEADER, 64)
    assert caught.value.details["reason"] == "out_of_memory"
    assert (caught.value.details["required"], caught.value.details["available"]) == (6442, 5369)
    assert "6442 MB of VRAM needed, 5369 MB available" in caught.value.message


def test_a_driver_that_is_gone_is_an_error_of_ours(
    cuda: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BackendUnavailableError):
        make_spec.available_memory(spec(0))
    with pytest.raises(ModelLoadFailedError, match="no device cuda:0 any more"):
        loading.check_memory(options(tmp_path, 0, 1), HEADER, 64)


def test_a_device_that_has_gone_since_is_an_error_of_ours() -> None:
    with pytest.raises(BackendUnavailableError):
        make_spec.available_memory(WorkerSpec("builtin:bee-stories", "/m.gguf", "vanished", 0, "vram", 4, 512, 1))
