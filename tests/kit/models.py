"""Makes small GGUF models whose text is known beforehand.

Such a model is a Markov chain in Llama's clothes: attention and feed-forward weights are zero, so what reaches the end
is the last token's embedding, and the output matrix sends each token to the one that `chain` names. Greedy decoding is
then exact, and a wider or deeper model of the same text is merely slower.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNKNOWN, BEGIN, END = 0, 1, 2
FIRST_BYTE = 3
SPACE = FIRST_BYTE + 256
VOCABULARY = SPACE + 1
BEE = "🐝"

Array = np.ndarray[Any, Any]


def byte(value: int | str) -> int:
    """Return the token of one byte."""
    value = ord(value) if isinstance(value, str) else value
    return SPACE if value == 0x20 else FIRST_BYTE + value


def chain() -> dict[int, int]:
    """Which token follows which.

    `a`…`z` end after `z`; `A`…`Z` go round for ever; digits go round with a bee before `0`; `!` begins bytes that are
    no UTF-8.
    """
    follows = dict.fromkeys(range(VOCABULARY), END)
    for first, last in (("a", "z"), ("A", "Z")):
        for code in range(ord(first), ord(last)):
            follows[byte(code)] = byte(code + 1)
    follows[byte("Z")] = byte("A")
    bee = [byte(value) for value in BEE.encode()]
    ring = [*(byte(str(digit)) for digit in range(10)), *bee, byte("0")]
    for this, after in pairwise(ring):
        follows[this] = after
    follows[byte("!")] = byte(0xFF)
    follows[byte(0xFF)] = byte(0xC3)
    follows[byte(0xC3)] = byte("y")
    return follows


def make(
    path: Path,
    *,
    width: int = 512,
    layers: int = 2,
    feed_forward: int = 64,
    context: int = 2048,
    architecture: str = "llama",
    random: bool = False,
    chat_template: str | list[dict[str, str]] | None = None,
    controls: Sequence[str] = (),
    quantised: bool = False,
    tensors_per_file: int = 0,
) -> Path:
    """Write a model; `random` weights instead of the chain, for its speed rather than its text.

    With `quantised` the layers are in Q4_0, which llama.cpp packs anew for the processor while it loads: a model of
    some hundred megabytes then takes seconds to load, and not the blink of an eye that mapping a file takes.
    `tensors_per_file` splits it into files named after `path` as llama.cpp names them. `controls` are control tokens
    that it has besides.
    """
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_file)
    writer.add_name("test chain")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(8)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 8)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(VOCABULARY + len(controls))
    add_vocabulary(writer, controls=controls)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, values in _tensors(VOCABULARY + len(controls), width, layers, feed_forward, random):
        if quantised and name.startswith("blk.") and values.ndim == 2:
            writer.add_tensor(name, _zero_blocks(values.shape), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _zero_blocks(shape: tuple[int, ...]) -> Array:
    """Return a matrix of zeros in Q4_0: 32 weights in 18 bytes, of which two are their scale."""
    rows, columns = shape
    return np.zeros((rows, columns // 32 * 18), np.uint8)


def add_vocabulary(writer: gguf.GGUFWriter, size: int = VOCABULARY, controls: Sequence[str] = ()) -> None:
    """Add `size` tokens: what every text is made of, and then words that no text comes to; and control tokens."""
    kinds = gguf.TokenType
    words = [f"▁word{number}".encode() for number in range(size - VOCABULARY)]
    texts = [b"<unk>", b"<s>", b"</s>", *(f"<0x{value:02X}>".encode() for value in range(256)), "▁".encode()]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, kinds.NORMAL]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*texts, *words, *(text.encode() for text in controls)])
    writer.add_token_scores([0.0] * (size + len(controls)))
    writer.add_token_types([*types, *[kinds.NORMAL] * len(words), *[kinds.CONTROL] * len(controls)])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_space_prefix(False)


def _tensors(tokens: int, width: int, layers: int, feed_forward: int, random: bool) -> list[tuple[str, Array]]:
    generator = np.random.default_rng(7)

    def weights(*shape: int) -> Array:
        if random:
            return generator.normal(0, 0.02, shape).astype(np.float16)
        return np.zeros(shape, np.float16)

    ones = np.ones(width, np.float32)
    embedding = weights(tokens, width)
    output = weights(tokens, width)
    if not random:
        for this, after in chain().items():
            embedding[this, this] = 1
            output[after, this] = 1
    tensors = [("token_embd.weight", embedding), ("output_norm.weight", ones), ("output.weight", output)]
    for layer in range(layers):
        tensors += [
            (f"blk.{layer}.attn_norm.weight", ones),
            (f"blk.{layer}.ffn_norm.weight", ones),
            *((f"blk.{layer}.attn_{part}.weight", weights(width, width)) for part in ("q", "k", "v", "output")),
            (f"blk.{layer}.ffn_gate.weight", weights(feed_forward, width)),
            (f"blk.{layer}.ffn_up.weight", weights(feed_forward, width)),
            (f"blk.{layer}.ffn_down.weight", weights(width, feed_forward)),
        ]
    return tensors
