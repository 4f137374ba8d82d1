"""What a context takes, read from what llama.cpp says while it makes one."""

from __future__ import annotations

import pytest

from rbee.wire.gguf import ModelHeader
from rbee.worker.llama.cache_size import CacheSize, read

MIB = 2**20
FULL = (
    "llama_kv_cache: size = {:7.2f} MiB ( 65536 cells,  {} layers,  1/1 seqs), K (f16): 1.00 MiB, V (f16): 1.00 MiB\n"
)
WINDOW = "llama_kv_cache: size = {:7.2f} MiB (  1536 cells,  {} layers,  1/1 seqs), K (f16): 1.00 MiB, V (f16): 1 MiB\n"
STATE = "llama_memory_recurrent: size = {:7.2f} MiB (     1 cells,  48 layers,  1 seqs  0 rs_seq), R (f32): 1.00 MiB\n"
OTHER = (
    "llama_context:        CPU  output buffer size =     0.57 MiB\n"
    "llama_kv_cache:        CPU KV buffer size =     0.00 MiB\n"
    "sched_reserve:        CPU compute buffer size =   120.01 MiB\n"
)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", CacheSize()),
        (OTHER + FULL.format(2560.0, 80), CacheSize(per_token=40960)),
        (FULL.format(0.25, 1) + OTHER, CacheSize(per_token=4)),
        (FULL.format(1280.0, 10) + WINDOW.format(156.0, 52), CacheSize(20480, 106496, 1024)),
        (FULL.format(384.0, 12) + STATE.format(62.81), CacheSize(6144, 0, 0, round(62.81 * MIB))),
        (STATE.format(0.16), CacheSize(0, 0, 0, round(0.16 * MIB))),
        (FULL.format(64.0, 4) + FULL.format(32.0, 4), CacheSize(per_token=1536)),
    ],
)
def test_each_cache_is_counted_as_what_it_is(log: str, expected: CacheSize) -> None:
    assert read(log, window=1024) == expected


def test_a_window_is_held_once_for_each_sequence_and_no_more_than_the_context() -> None:
    header = ModelHeader(
        architecture="bee", parameters=1, tensor_bytes=1, cache_per_token=100, window_per_token=1000, window=1024
    )
    assert header.fixed_cache_bytes(1, 65536) == 1000 * 1536
    assert header.fixed_cache_bytes(4, 65536) == 1000 * 4608
    assert header.fixed_cache_bytes(4, 1024) == 1000 * 4096, "a short context holds all of it"


def test_what_an_older_hive_has_read_is_reckoned_as_before() -> None:
    header = ModelHeader(
        architecture="llama",
        parameters=1,
        tensor_bytes=1,
        block_count=2,
        head_count_kv=8,
        key_length=64,
        value_length=64,
    )
    assert header.kv_bytes_per_token() == 2 * 2 * 8 * 128
    assert header.fixed_cache_bytes(4, 4096) == 0
