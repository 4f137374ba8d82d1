"""Makes GGUF files that are no models of text, or that this engine does not know: sound files, all of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import gguf
import numpy as np

from tests.kit import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

F16, F32 = np.float16, np.float32
MATRIX: Final = ("mm.0.weight", np.zeros((32, 32), F16))


def chain(path: Path, architecture: str = "llama", *, without: tuple[str, ...] = (), **more: Any) -> Path:
    """Write the chain of `tests.kit.models`; `more` replaces or adds metadata, `without` leaves out tensors."""
    values: dict[str, Any] = {
        "name": path.stem, "context_length": 2048, "embedding_length": 64, "block_count": 1, "feed_forward_length": 64,
        "attention.head_count": 8, "attention.head_count_kv": 8, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": 8, "vocab_size": models.VOCABULARY,
    } | {key.replace("__", "."): value for key, value in more.items()}  # fmt: skip
    vocabulary = values.pop("vocabulary", models.add_vocabulary)
    weights = values.pop("weights", None) or tensors()
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        put(writer, key if "." in key and key.startswith(("general.", "split.")) else f"{architecture}.{key}", value)
    vocabulary(writer)
    for name, tensor in weights:
        if name not in without:
            writer.add_tensor(name, tensor)
    return finished(writer, path)


def tensors(width: int = 64) -> list[tuple[str, Any]]:
    embedding = np.zeros((models.VOCABULARY, width), F16)
    square, ones = np.zeros((width, width), F16), np.ones(width, F32)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return [
        ("token_embd.weight", embedding),
        ("output_norm.weight", ones),
        ("output.weight", embedding),
        ("blk.0.attn_norm.weight", ones),
        ("blk.0.ffn_norm.weight", ones),
        *((f"blk.0.{name}.weight", square) for name in names),
    ]


def put(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Add a value as the type that llama.cpp expects of its Python type."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def bare(path: Path, architecture: str, *weights: tuple[str, Any], **values: Any) -> Path:
    """Write a file with these values and tensors and nothing else."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        put(writer, key.replace("__", "."), value)
    for name, tensor in weights:
        writer.add_tensor(name, tensor)
    return finished(writer, path)


def finished(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer(model: str, pre: str = "default") -> Callable[[gguf.GGUFWriter], None]:
    """Return what adds a vocabulary for this tokenizer."""

    def add(writer: gguf.GGUFWriter) -> None:
        tokens = ["<|begin|>", "<|end|>", *map(chr, range(33, 127)), "Ġ", "Ċ"]
        tokens += [f"<unused{number}>" for number in range(models.VOCABULARY - len(tokens))]
        writer.add_tokenizer_model(model)
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(["a b", "c d"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)

    return add


def no_tokenizer(_writer: gguf.GGUFWriter) -> None:
    """Add no vocabulary."""


def encoder_decoder(path: Path) -> Path:
    """Write a T5 of one layer on either side."""
    width, ones = 64, np.ones(64, F32)
    square = np.zeros((width, width), F32)
    writer = gguf.GGUFWriter(path, "t5")
    values = {
        "context_length": 256, "embedding_length": width, "block_count": 1, "feed_forward_length": width,
        "attention.head_count": 4, "attention.key_length": 16, "attention.value_length": 16,
        "attention.layer_norm_epsilon": 1e-6, "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.relative_buckets_count": 32, "decoder_start_token_id": 1, "vocab_size": models.VOCABULARY,
    }  # fmt: skip
    for key, value in values.items():
        put(writer, f"t5.{key}", value)
    models.add_vocabulary(writer)
    writer.add_tensor("token_embd.weight", np.zeros((models.VOCABULARY, width), F32))
    for side in ("enc", "dec"):
        writer.add_tensor(f"{side}.output_norm.weight", ones)
        writer.add_tensor(f"{side}.blk.0.attn_rel_b.weight", np.zeros((32, 4), F32))
        for part in ("attn", *(["cross_attn"] if side == "dec" else [])):
            writer.add_tensor(f"{side}.blk.0.{part}_norm.weight", ones)
            for name in "qkvo":
                writer.add_tensor(f"{side}.blk.0.{part}_{name}.weight", square)
        writer.add_tensor(f"{side}.blk.0.ffn_norm.weight", ones)
        for name in ("up", "down"):
            writer.add_tensor(f"{side}.blk.0.ffn_{name}.weight", square)
    return finished(writer, path)


def hybrid(path: Path, *, random: bool = False) -> Path:
    """Write an LFM2 of four layers, of which two have attention; its weights are zeros, or `random`."""
    width, head = 64, 8
    generator = np.random.default_rng(7)

    def matrix(*shape: int) -> Any:
        return generator.normal(0, 0.2, shape).astype(F32) if random else np.zeros(shape, F32)

    square, ones = matrix(width, width), np.ones(width, F32)
    weights: list[tuple[str, Any]] = [
        ("token_embd.weight", matrix(models.VOCABULARY, width)),
        ("token_embd_norm.weight", ones),
    ]
    for layer in range(4):
        parts: dict[str, Any] = {"attn_norm": ones, "ffn_norm": ones}
        parts |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), square)
        if layer % 2:
            parts |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
            parts |= dict.fromkeys(("attn_q_norm", "attn_k_norm"), np.ones(head, F32))
        else:
            parts |= {"shortconv.in_proj": matrix(3 * width, width), "shortconv.out_proj": square}
            parts["shortconv.conv"] = matrix(width, 3)
        weights += [(f"blk.{layer}.{name}.weight", value) for name, value in parts.items()]
    return chain(
        path, "lfm2", weights=weights, block_count=4, attention__head_count_kv=[0, 8, 0, 8], shortconv__l_cache=3
    )


def recurrent(path: Path) -> Path:
    """Write a Mamba of one layer, which keeps no token at all."""
    width, inner, state, rank = 512, 1024, 16, 8
    shapes = {
        "attn_norm.weight": (width,), "ssm_in.weight": (2 * inner, width), "ssm_conv1d.weight": (inner, 4),
        "ssm_conv1d.bias": (inner,), "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank),
        "ssm_dt.bias": (inner,), "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out.weight": (width, inner),
    }  # fmt: skip
    weights: list[tuple[str, Any]] = [
        ("token_embd.weight", np.zeros((models.VOCABULARY, width), F32)),
        ("output_norm.weight", np.ones(width, F32)),
        *((f"blk.0.{name}", np.zeros(shape, F32)) for name, shape in shapes.items()),
    ]
    values = {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank}
    none = {"attention.head_count": 0, "attention.head_count_kv": 0, "embedding_length": width}
    return chain(path, "mamba", weights=weights, **values, **none)


def of_tensor_type(path: Path, number: int) -> Path:
    """Write a chain one of whose tensors claims to be of this type."""
    data = bytearray(chain(path).read_bytes())
    at = data.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight")
    (dimensions,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at + 4 + 8 * dimensions, number)
    path.write_bytes(data)
    return path


def of_version(path: Path, version: int) -> Path:
    data = chain(path).read_bytes()
    path.write_bytes(data[:4] + struct.pack("<I", version) + data[8:])
    return path


def big_endian(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor(*MATRIX)
    return finished(writer, path)


def not_numbers(path: Path, *, tensor: str = "output_norm.weight") -> Path:
    """Write a chain that knows its texts, but for one tensor of NaN."""
    weights = [
        (name, np.full_like(values, np.nan) if name == tensor else values)
        for name, values in models._tensors(models.VOCABULARY, 512, 1, 64, random=False)
    ]
    return chain(path, weights=weights, embedding_length=512, rope__dimension_count=64)


def of_tokenizer(path: Path, **settings: bool) -> Path:
    """Write a chain that knows its texts, with settings of its tokenizer."""

    def add(writer: gguf.GGUFWriter) -> None:
        models.add_vocabulary(writer)
        for key, value in settings.items():
            writer.add_bool(f"tokenizer.ggml.{key}", value)

    weights = models._tensors(models.VOCABULARY, 512, 1, 64, random=False)
    return chain(path, vocabulary=add, weights=weights, embedding_length=512, rope__dimension_count=64)
