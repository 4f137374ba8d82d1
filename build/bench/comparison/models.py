"""The models of the bench: a real one, and Llamas of random weights, made on first use and kept in the cache folder."""

import os
import random
import re
from functools import cache as remembered
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

import cache
import test_data
from progress import Progress


class Shape(NamedTuple):
    """A Llama; `context` is what its file says that it was trained with."""

    width: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    words: int
    context: int = 16384


SHAPES = {
    "random-tiny": Shape(64, 2, 128, 2, 2, 2000),  # to try the bench out
    "random-110m": Shape(768, 12, 2048, 12, 12, 16000),
    "random-1.1b": Shape(2048, 22, 5632, 32, 4, 32000),
}
NAMES = ("smollm2", *SHAPES)
BLOCK = 32
"""Weights of Q4_0 that share a scale: two bytes of scale, and half a byte for each."""
SCALE = 0.02 / 4.6
"""Makes the standard deviation of evenly drawn values from -8 to 7 that of a Llama before training."""
TEMPLATE = (
    "{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)


def find(name: str) -> Path:
    """Return the file of one of NAMES, or the file itself."""
    if name == "smollm2":
        return test_data.model()
    return _random(name) if name in SHAPES else Path(name).absolute()


def _random(name: str) -> Path:
    path = cache.folder() / "bench" / f"{name}.Q4_0.gguf"
    with cache.lock(path.with_suffix(".lock")):
        if not path.exists():
            scratch = path.with_suffix(f".{os.getpid()}")
            try:
                with Progress(f"making {path.name}, once") as progress:
                    _write(scratch, SHAPES[name], progress)
                scratch.rename(path)
            finally:
                scratch.unlink(missing_ok=True)
    return path


def _write(path: Path, shape: Shape, progress: Progress) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    # Each word is a token of its own, which its beginnings, being tokens too, lead to.
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), "▁", "▁w"]
    silent = len(texts)
    texts += [f"▁w{number}" for number in range(shape.words - silent)]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * (len(texts) - 259)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * len(texts))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    generator = np.random.default_rng(1)
    ones = np.ones(shape.width, np.float32)
    kv_width = shape.width * shape.kv_heads // shape.heads

    def add(name: str, rows: int, columns: int, *, silent_rows: int = 0) -> None:
        blocks = generator.integers(0, 256, (rows, columns // BLOCK, 2 + BLOCK // 2), np.uint8)
        blocks[:, :, :2] = np.frombuffer(np.float16(SCALE).tobytes(), np.uint8)
        blocks[:silent_rows, :, :2] = 0
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    add("token_embd.weight", shape.words, shape.width)
    # What is no word is never the likeliest: no text ends before it is as long as it was asked for.
    add("output.weight", shape.words, shape.width, silent_rows=silent)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(shape.layers):
        progress.step(layer, shape.layers)
        add(f"blk.{layer}.attn_q.weight", shape.width, shape.width)
        add(f"blk.{layer}.attn_k.weight", kv_width, shape.width)
        add(f"blk.{layer}.attn_v.weight", kv_width, shape.width)
        add(f"blk.{layer}.attn_output.weight", shape.width, shape.width)
        add(f"blk.{layer}.ffn_gate.weight", shape.feed_forward, shape.width)
        add(f"blk.{layer}.ffn_up.weight", shape.feed_forward, shape.width)
        add(f"blk.{layer}.ffn_down.weight", shape.width, shape.feed_forward)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@remembered
def vocabulary(path: Path) -> tuple[str, ...]:
    """Return words that are a token each, with the space before them."""
    tokens: Any = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    found = (re.fullmatch(r"[Ġ▁]([a-z]{4,}|w\d+)", token) for token in tokens)
    return tuple(f" {match[1]}" for match in found if match)


class Words:
    """Texts of so many tokens each, of which no two begin alike; the same seed gives the same texts."""

    def __init__(self, model: Path, *seed: object) -> None:
        self._random = random.Random(repr(seed))
        self._vocabulary = vocabulary(model)

    def text(self, count: int) -> str:
        return "".join(self._random.choices(self._vocabulary, k=count))
