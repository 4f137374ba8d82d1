"""Makes small models of random weights whose memory is no plain KV cache: a recurrent one, and one with a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

from tests.kit.models import VOCABULARY, Array, add_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, LAYERS, FEED_FORWARD, HEADS = 64, 2, 64, 2
WINDOW = 32
"""Tokens that every other layer of `make_windowed` looks back."""


def make_recurrent(path: Path) -> Path:
    """Write a Mamba."""
    inner, state, rank, kernel = 2 * WIDTH, 16, 4, 4
    writer = _writer(path, "mamba")
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": _ones(WIDTH),
            "ssm_in.weight": _random(2 * inner, WIDTH),
            "ssm_conv1d.weight": _random(inner, kernel).astype(np.float32),
            "ssm_conv1d.bias": _ones(inner),
            "ssm_x.weight": _random(rank + 2 * state, inner),
            "ssm_dt.weight": _random(inner, rank),
            "ssm_dt.bias": _ones(inner),
            "ssm_a": -np.ones((inner, state), np.float32),
            "ssm_d": _ones(inner),
            "ssm_out.weight": _random(WIDTH, inner),
        }
        _add(writer, layer, block)
    return _finish(writer, path)


def make_windowed(path: Path) -> Path:
    """Write a Gemma 2, of which every other layer sees the last WINDOW tokens only."""
    writer = _writer(path, "gemma2")
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_sliding_window(WINDOW)
    for layer in range(LAYERS):
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        block = {f"{name}.weight": _ones(WIDTH) for name in norms}
        block |= {f"attn_{part}.weight": _random(WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        block |= {f"ffn_{part}.weight": _random(FEED_FORWARD, WIDTH) for part in ("gate", "up")}
        block["ffn_down.weight"] = _random(WIDTH, FEED_FORWARD)
        _add(writer, layer, block)
    return _finish(writer, path)


_generator = np.random.default_rng(7)


def _random(*shape: int) -> Array:
    return _generator.normal(0, 0.2, shape).astype(np.float16)


def _ones(count: int) -> Array:
    return np.ones(count, np.float32)


def _writer(path: Path, architecture: str) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    add_vocabulary(writer)
    writer.add_tensor("token_embd.weight", _random(VOCABULARY, WIDTH))
    writer.add_tensor("output_norm.weight", _ones(WIDTH))
    return writer


def _add(writer: gguf.GGUFWriter, layer: int, block: dict[str, Array]) -> None:
    for name, values in block.items():
        writer.add_tensor(f"blk.{layer}.{name}", values)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
