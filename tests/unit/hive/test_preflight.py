"""Whether a model fits, and where it runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BackendUnavailableError, DeviceOutOfRangeError, OutOfMemoryError
from rbee.hive.workers import preflight
from rbee.hive.workers.preflight import (
    MEGABYTE,
    DeviceChoice,
    check_memory,
    choose_device,
    memory_needed,
)
from rbee.wire.hive import BackendDevices, Device


def backend(name: str, devices: int = 1) -> BackendDevices:
    return BackendDevices(
        name=name,
        devices=[Device(index=at, name="d", memory_total=8, memory_available=8) for at in range(devices)],
    )


CPU, CUDA = backend("cpu"), backend("cuda", 2)


def test_a_model_of_5000_mb_needs_6000() -> None:
    assert memory_needed(5000 * MEGABYTE, 0, 0) == 6000 * MEGABYTE


def test_6000_of_8000_mb_fit() -> None:
    check_memory(memory_needed(5000 * MEGABYTE, 0, 0), 8000 * MEGABYTE, "ram")


def test_6000_of_4000_mb_do_not_fit_and_the_error_has_both_numbers() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(memory_needed(5000 * MEGABYTE, 0, 0), 4000 * MEGABYTE, "ram")
    error = caught.value
    assert error.details == {"required": 6000, "available": 4000, "resource": "ram"}
    assert error.code == "VRAM_EXHAUSTED"
    assert "6000 MB of RAM" in error.message
    assert "4000 MB" in error.message
    assert error.hint is not None
    assert "smaller quantisation" in error.hint


def test_the_cache_of_all_tokens_is_added() -> None:
    assert memory_needed(10, 3, 100) == 12 + 300


def test_what_just_fits_fits() -> None:
    check_memory(100, 100, "ram")
    with pytest.raises(OutOfMemoryError):
        check_memory(101, 100, "ram")


@given(needed=st.integers(1, 2**50), available=st.integers(-(2**50), 2**50))
def test_the_numbers_shown_never_contradict_the_refusal(needed: int, available: int) -> None:
    if needed <= available:
        check_memory(needed, available, "vram")
        return
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(needed, available, "vram")
    shown = caught.value.details
    assert shown["required"] > shown["available"] >= 0
    assert shown["required"] * MEGABYTE >= needed


@pytest.mark.parametrize(
    ("backends", "wanted", "device", "expected"),
    [
        ([CPU], None, None, DeviceChoice("cpu", 0, "ram")),
        ([CPU], "cpu", 0, DeviceChoice("cpu", 0, "ram")),
        ([CPU, CUDA], None, None, DeviceChoice("cuda", 0, "vram")),
        ([CPU, CUDA], "cpu", None, DeviceChoice("cpu", 0, "ram")),
        ([CPU, CUDA], None, 1, DeviceChoice("cuda", 1, "vram")),
        ([backend("vulkan"), CPU, backend("metal")], None, None, DeviceChoice("metal", 0, "vram")),
    ],
)
def test_the_best_that_was_not_excluded_is_chosen(
    backends: list[BackendDevices], wanted: str | None, device: int | None, expected: DeviceChoice
) -> None:
    assert choose_device(backends, wanted, device) == expected


def test_a_missing_backend_is_named_with_those_that_exist() -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        choose_device([CUDA, CPU], "metal", None)
    assert caught.value.details == {"backend": "metal", "available": ["cpu", "cuda"]}
    assert "metal" in caught.value.message
    assert "cpu, cuda" in caught.value.message


def test_without_any_backend_the_error_lists_none() -> None:
    with pytest.raises(BackendUnavailableError, match="available: none"):
        choose_device([], None, None)


@pytest.mark.parametrize(("wanted", "device"), [("cuda", 2), (None, 1023), ("cpu", 1)])
def test_a_device_out_of_range_is_named_with_the_count(wanted: str | None, device: int) -> None:
    with pytest.raises(DeviceOutOfRangeError) as caught:
        choose_device([CPU, CUDA], wanted, device)
    assert caught.value.details == {"asked": device, "available": 1 if wanted == "cpu" else 2}


def test_a_backend_without_devices_has_no_first_one() -> None:
    with pytest.raises(DeviceOutOfRangeError):
        choose_device([backend("cuda", 0), CPU], "cuda", None)


def test_the_processor_comes_last() -> None:
    assert preflight.PREFERRED[-1] == "cpu"


def test_the_longest_context_that_fits_is_offered() -> None:
    """1000 MB of weights and 100 MB for each 1000 tokens: with 1350 MB there is room for 3500."""
    per_token = MEGABYTE // 10
    needed = 1000 * MEGABYTE + 4096 * per_token
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(needed, 1350 * MEGABYTE, "ram", context=4096, cache_per_token=per_token)
    assert caught.value.details["longest_context"] == 3456  # in steps of 64
    assert "a context of 3456 tokens instead of 4096" in (caught.value.hint or "")
    check_memory(1000 * MEGABYTE + 3456 * per_token, 1350 * MEGABYTE, "ram")


@pytest.mark.parametrize(("context", "per_token"), [(None, 100), (4096, 0), (4096, MEGABYTE)])
def test_where_no_context_would_do_none_is_offered(context: int | None, per_token: int) -> None:
    needed = 1000 * MEGABYTE + 4096 * per_token + 1
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(needed, 1000 * MEGABYTE + 255 * per_token, "ram", context=context, cache_per_token=per_token)
    assert "longest_context" not in caught.value.details
    assert "smaller quantisation" in (caught.value.hint or "")
