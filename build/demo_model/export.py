"""The export: a trained model and its tokenizer as one GGUF file in Q8_0."""

from pathlib import Path

import gguf
import numpy as np
from model import Llama, Shape
from numpy.typing import NDArray
from tokenizer import BEGIN_ID, END_ID, Vocabulary

NAME = "bee-stories"
# The prompt is the text to go on with, so a chat hands over the last message as it is.
CHAT_TEMPLATE = "{{ messages[-1]['content'] }}"

PARTS = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def tensor_name(parameter: str) -> str:
    """Return the GGUF name of a parameter of `Llama`."""
    stem = parameter.removesuffix(".weight")
    if stem == "embedding":
        return "token_embd.weight"
    if stem == "norm":
        return "output_norm.weight"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{PARTS[part]}.weight"


def write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write what the engine needs to build the network."""
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the tokenizer; the two special tokens are control tokens, so they are never printed."""
    types = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    types[BEGIN_ID] = types[END_ID] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(BEGIN_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_tensor(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32]) -> None:
    """Write a matrix as Q8_0, and anything else, which is small, as it is."""
    if values.ndim < 2:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def write_model(path: Path, model: Llama, vocabulary: Vocabulary) -> None:
    """Write the file; there is no output matrix, for which the engine takes the embedding."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_description("Little stories about bees, told by a little model.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_shape(writer, model.shape)
    write_vocabulary(writer, vocabulary)
    for parameter, values in model.state_dict().items():
        write_tensor(writer, tensor_name(parameter), values.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
