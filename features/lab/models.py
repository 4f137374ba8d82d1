"""Makes GGUF files of the Llama architecture with random weights: real to the engine, nonsense to a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

BYTES = 256
Q4_0_BLOCK, Q4_0_BYTES = 32, 18


def byte_alphabet() -> list[str]:
    """Return the 256 characters by which byte-level BPE writes bytes (Radford et al. 2019, GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(BYTES)]


def make_model(path: Path, *, layers: int, width: int, heads: int = 8, context: int = 2048, seed: int = 1) -> Path:
    """Write a model in Q4_0; its size on disk is about `layers` × `width`² × 7 bytes."""
    rng = np.random.default_rng(seed)
    feed_forward = width * 3
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(BYTES + 1)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    _add_tokenizer(writer)

    def matrix(rows: int, columns: int) -> np.ndarray:
        blocks = rng.integers(0, 256, (rows, columns // Q4_0_BLOCK, Q4_0_BYTES), dtype=np.uint8)
        # A block starts with its scale; random bits there could be infinite or not a number.
        blocks[:, :, :2] = np.frombuffer(np.float16(0.01).tobytes(), dtype=np.uint8)
        return blocks.reshape(rows, -1)

    def add(name: str, data: np.ndarray) -> None:
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0 if data.dtype == np.uint8 else None)

    add("token_embd.weight", matrix(BYTES + 1, width))
    add("output.weight", matrix(BYTES + 1, width))
    add("output_norm.weight", np.ones(width, dtype=np.float32))
    square, up, down = matrix(width, width), matrix(feed_forward, width), matrix(width, feed_forward)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", square)
        for name, data in (("ffn_gate", up), ("ffn_up", up), ("ffn_down", down)):
            add(f"blk.{layer}.{name}.weight", data)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Add a vocabulary of the 256 bytes and an end token."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_alphabet(), "<end>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * BYTES + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(BYTES)
    writer.add_eos_token_id(BYTES)
