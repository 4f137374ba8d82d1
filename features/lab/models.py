"""Makes GGUF files of the Llama architecture with random weights: real to the engine, nonsense to a reader."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES = 256
Q4_0_BLOCK, Q4_0_BYTES = 32, 18


def byte_alphabet() -> list[str]:
    """Return the 256 characters by which byte-level BPE writes bytes (Radford et al. 2019, GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(BYTES)]


def make_model(path: Path, *, layers: int, width: int, heads: int = 8, context: int = 2048, seed: int = 1) -> Path:
    """Write a model in Q4_0; its size on disk is about `layers` × `width`² × 7 bytes.

    Its text is random and, at temperature 0, never ends: the end token's score is always 0, and some other's is higher.
    """
    rng = np.random.default_rng(seed)
    shape = _Shape(layers=layers, width=width, feed_forward=width * 3, heads=heads, kv_heads=heads, context=context)
    writer = _begin(path, shape, gguf.LlamaFileType.MOSTLY_Q4_0)
    made: dict[tuple[int, ...], np.ndarray] = {}

    def matrix(rows: int, columns: int) -> np.ndarray:
        blocks = rng.integers(0, 256, (rows, columns // Q4_0_BLOCK, Q4_0_BYTES), dtype=np.uint8)
        # A block starts with its scale; random bits there could be infinite or not a number.
        blocks[:, :, :2] = np.frombuffer(np.float16(0.01).tobytes(), dtype=np.uint8)
        return blocks.reshape(rows, -1)

    for name, extents in _tensors(shape):
        if len(extents) == 1:
            writer.add_tensor(name, np.ones(extents, dtype=np.float32))
        else:
            # Making the numbers takes longest, so layers share them.
            data = made[extents] = made[extents] if extents in made else matrix(*extents)
            if name == "output.weight":
                data = data.copy()
                data[BYTES] = 0
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_sparse_model(path: Path, size: int) -> Path:
    """Write a model of `size` bytes in F16 that takes next to nothing on the disk: its weights are a hole of zeros.

    Its key-value cache is small: 512 bytes a token and layer.
    """
    width, feed_forward = 4096, 12288
    per_layer = 2 * (2 * width * width + 2 * width * 128 + 3 * width * feed_forward)
    shape = _Shape(
        layers=(size - 4 * width * BYTES) // per_layer,
        width=width,
        feed_forward=feed_forward,
        heads=32,
        kv_heads=1,
        context=2048,
    )
    writer = _begin(path, shape, gguf.LlamaFileType.MOSTLY_F16)
    for name, extents in _tensors(shape):
        kind = np.dtype(np.float32 if len(extents) == 1 else np.float16)
        writer.add_tensor_info(name, extents, kind, math.prod(extents) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, size)
    return path


class _Shape(NamedTuple):
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int


def _begin(path: Path, shape: _Shape, file_type: gguf.LlamaFileType) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(BYTES + 1)
    writer.add_file_type(file_type)
    _add_tokenizer(writer)
    return writer


def _tensors(shape: _Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and extents of each tensor; those of one extent are norms."""
    width, keys = shape.width, shape.width // shape.heads * shape.kv_heads
    up, down = (shape.feed_forward, width), (width, shape.feed_forward)
    yield "token_embd.weight", (BYTES + 1, width)
    yield "output.weight", (BYTES + 1, width)
    yield "output_norm.weight", (width,)
    for layer in range(shape.layers):
        for name in ("attn_q", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (width, width)
        for name in ("attn_k", "attn_v"):
            yield f"blk.{layer}.{name}.weight", (keys, width)
        for name, extents in (("ffn_gate", up), ("ffn_up", up), ("ffn_down", down)):
            yield f"blk.{layer}.{name}.weight", extents
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (width,)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Add a vocabulary of the 256 bytes and an end token."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_alphabet(), "<end>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * BYTES + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(BYTES)
    writer.add_eos_token_id(BYTES)
