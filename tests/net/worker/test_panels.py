"""The engine multiplies Q4_1 weights by several columns at once as by each of them (build/patch_panels.py)."""

from __future__ import annotations

import ctypes
import random
import struct
from pathlib import Path
from typing import Any, Final

import pytest

from rbee.worker.llama import library
from rbee.worker.llama.gguf_file import libraries

F32, Q4_1 = 0, 3
"""Types of ggml (ggml.h)."""
BLOCK: Final = 32
BYTES: Final = 20
"""Of a block of Q4_1: scale and offset in 16 bits each, and 32 quants."""


class _Memory(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@pytest.fixture(scope="module")
def ggml() -> Any:
    """Return ggml's functions: those of the base, and `compute` of the variant for this processor."""
    library.load()
    base = ctypes.CDLL(str(libraries() / "libggml-base.so.0"))
    pointers = ("ggml_init", "ggml_new_tensor_2d", "ggml_mul_mat", "ggml_new_graph", "ggml_get_data")
    for name in pointers:
        getattr(base, name).restype = ctypes.c_void_p
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libggml-cpu-" in line}
    base.compute = ctypes.CDLL(mapped.pop()).ggml_graph_compute_with_ctx
    return base


def weights(generator: random.Random, count: int) -> tuple[bytes, list[float]]:
    """Return blocks, and the numbers they stand for."""
    packed, numbers = b"", []
    for _ in range(count):
        # Few digits, so that 16 bits hold them.
        scale, offset = generator.randrange(1, 64) / 64, generator.randrange(-64, 64) / 16
        quants = [generator.randrange(16) for _ in range(BLOCK)]
        packed += struct.pack("<ee", scale, offset)
        packed += bytes(low | high << 4 for low, high in zip(quants[:16], quants[16:], strict=True))
        numbers += [scale * quant + offset for quant in quants]
    return packed, numbers


def activations(generator: random.Random, count: int) -> list[float]:
    """Return numbers that eight bits hold as they are: whole ones, of which one in each block is 127."""
    numbers = [float(generator.randrange(-127, 128)) for _ in range(count)]
    numbers[::BLOCK] = [127.0] * (count // BLOCK)
    return numbers


def multiply(ggml: Any, packed: bytes, rows: int, columns: list[list[float]], threads: int) -> list[float]:
    width = len(columns[0])
    context = ctypes.c_void_p(ggml.ggml_init(_Memory(64 << 20, None, False)))

    def new(kind: int, height: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ggml.ggml_new_tensor_2d(context, kind, ctypes.c_int64(width), ctypes.c_int64(height)))

    left, right = new(Q4_1, rows), new(F32, len(columns))
    numbers = [number for column in columns for number in column]
    ctypes.memmove(ggml.ggml_get_data(left), packed, len(packed))
    ctypes.memmove(ggml.ggml_get_data(right), (ctypes.c_float * len(numbers))(*numbers), 4 * len(numbers))
    product = ctypes.c_void_p(ggml.ggml_mul_mat(context, left, right))
    graph = ctypes.c_void_p(ggml.ggml_new_graph(context))
    ggml.ggml_build_forward_expand(graph, product)
    assert ggml.compute(context, graph, threads) == 0
    found = (ctypes.c_float * (rows * len(columns))).from_address(ggml.ggml_get_data(product))
    result = list(found)
    ggml.ggml_free(context)
    return result


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("rows", "blocks", "count"),
    [
        (16, 1, 2),
        (1, 1, 2),
        (15, 3, 3),
        (17, 18, 4),
        (40, 31, 5),
        (16, 32, 8),
        (33, 33, 7),
        (5, 70, 2),
        (200, 2, 9),
        (48, 4, 130),
        (64, 3, 1),
    ],
)
def test_each_number_is_what_was_to_be_added_up(ggml: Any, rows: int, blocks: int, count: int, threads: int) -> None:
    generator = random.Random(rows * blocks * count)
    packed, numbers = weights(generator, rows * blocks)
    width = blocks * BLOCK
    columns = [activations(generator, width) for _ in range(count)]
    found = multiply(ggml, packed, rows, columns, threads)
    for index, column in enumerate(columns):
        for row in range(rows):
            products = [a * b for a, b in zip(numbers[row * width : (row + 1) * width], column, strict=True)]
            # The sum of a block of activations is kept in 16 bits, which above 2048 hold even numbers alone.
            margin = 4 * blocks + 1e-5 * sum(abs(product) for product in products)
            assert abs(found[index * rows + row] - sum(products)) < margin, (index, row)


def test_a_column_does_not_depend_on_those_beside_it(ggml: Any) -> None:
    generator = random.Random(7)
    packed, _ = weights(generator, 40 * 20)
    columns = [activations(generator, 20 * BLOCK) for _ in range(7)]
    together = multiply(ggml, packed, 40, columns, 2)
    for count in (2, 3, 4, 5):
        assert multiply(ggml, packed, 40, columns[:count], 1) == together[: 40 * count]
