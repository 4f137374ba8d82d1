"""Makes one small Llama, quantised by llama.cpp's own quantiser, under the names that TheBloke gives such files.

Like the models of tests.kit.models it is a Markov chain, so its text is known beforehand: every chat is answered with
the alphabet and the end token. Unlike those it is built as a real one is: 32000 tokens, a chat template, rows of 256 as
the K-quants need them, and layers that compute something, though too little to change which token comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gguf
import numpy as np

from rbee.worker.llama import library
from tests.kit import models

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY: Final = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
STEM: Final = "tinyllama-1.1b-chat-v1.0"
QUANTISATIONS: Final = {
    "Q4_K_M": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "Q5_K_M": gguf.LlamaFileType.MOSTLY_Q5_K_M,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
VOCABULARY: Final = 32000
LAYERS: Final = 2
CONTEXT: Final = 2048
ANSWER: Final = "abcdefghijklmnopqrstuvwxyz"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# Most of the bytes are in the vocabulary's two matrices: those of the layers are packed anew for some processors and
# are then in memory twice, in some quantisations and not in others.
_WIDTH: Final = 256
_FEED_FORWARD: Final = 256
_HEADS: Final = 4


def make(folder: Path) -> dict[str, Path]:
    """Write the files into `folder` and return them by their quantisation, F16 first."""
    files = {"F16": _make_f16(folder / f"{STEM}.F16.gguf")}
    llama = library.load()
    lib: Any = llama.functions
    for name, file_type in QUANTISATIONS.items():
        files[name] = folder / f"{STEM}.{name}.gguf"
        params = lib.llama_model_quantize_default_params()
        params.ftype = file_type.value
        failed = lib.llama_model_quantize(bytes(files["F16"]), bytes(files[name]), params)
        assert not failed, llama.complaints.lines()
    return files


def _make_f16(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tinyllama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(VOCABULARY)
    models.add_vocabulary(writer, VOCABULARY)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, values in _tensors():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors() -> list[tuple[str, models.Array]]:
    generator = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return generator.normal(0, 0.01, shape).astype(np.float16)

    ones = np.ones(_WIDTH, np.float32)
    embedding, output = _chain()
    tensors = [("token_embd.weight", embedding), ("output_norm.weight", ones), ("output.weight", output)]
    for layer in range(LAYERS):
        tensors += [
            (f"blk.{layer}.attn_norm.weight", ones),
            (f"blk.{layer}.ffn_norm.weight", ones),
            *((f"blk.{layer}.attn_{part}.weight", weights(_WIDTH, _WIDTH)) for part in ("q", "k", "v", "output")),
            (f"blk.{layer}.ffn_gate.weight", weights(_FEED_FORWARD, _WIDTH)),
            (f"blk.{layer}.ffn_up.weight", weights(_FEED_FORWARD, _WIDTH)),
            (f"blk.{layer}.ffn_down.weight", weights(_WIDTH, _FEED_FORWARD)),
        ]
    return tensors


def _chain() -> tuple[models.Array, models.Array]:
    """Return the matrices of embeddings and output; the template's last line feed is followed by the answer."""
    follows = models.chain() | {models.byte("\n"): models.byte(ANSWER[0])}
    embedding, output = np.zeros((2, VOCABULARY, _WIDTH), np.float16)
    # All tokens that end the text share the first dimension; each of the others has one to itself.
    embedding[:, 0] = 1
    output[models.END, 0] = 1
    going_on = {this: after for this, after in follows.items() if after != models.END}
    for dimension, (this, after) in enumerate(going_on.items(), 1):
        embedding[this, 0], embedding[this, dimension] = 0, 1
        output[after, dimension] = 1
    return embedding, output
