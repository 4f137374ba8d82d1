"""Reads the description of a model in a GGUF file's header, and prints it as one JSON object.

This is the hidden command `rbee model-header PATH [SIZE]`: it runs in a process of its own, with limits, so that a file
made to crash the reader, or to keep it busy, harms nobody else. Exit code 1 comes with the error object instead of the
header. With SIZE the file is the beginning of one of so many bytes, as it is while it is fetched.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.errors import ModelLoadFailedError
from rbee.wire.error_body import to_body
from rbee.wire.gguf import ModelHeader
from rbee.wire.model_kind import TEXT
from rbee.wire.split_name import SplitName
from rbee.worker.chat import families
from rbee.worker.llama import dry_run
from rbee.worker.llama.gguf_file import MAX_LAYERS, GgufFile, Tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""The values of `enum llama_ftype` (llama.h)."""
_RANK: Final = 4
"""`LLAMA_POOLING_TYPE_RANK` (llama.h); the others from 1 on make embeddings."""
CPU_SECONDS: Final = 1
MEMORY_BYTES: Final = 160 << 20
"""Beside what starting Python has taken. A vocabulary of 150,000 with twice as many merges takes 0.03 s and 60 MB."""

_TEMPLATE: Final = "tokenizer.chat_template"
_SPLIT_COUNT: Final = b"split.count" + struct.pack("<I", 2)
"""The key, and the type of its value: two bytes."""
_MOST_CACHE: Final = 1 << 32
"""Bytes of the KV cache for one token above which the numbers are nonsense; what is reckoned with them stays exact."""


def read(path: Path) -> ModelHeader:
    """Return the header of the model in `path`, which may be the first of several files.

    Raises ModelLoadFailedError whose `reason` is `missing`, `not_gguf`, `corrupt` or `unsupported`. A hostile file may
    end the process.
    """
    with GgufFile(path) as file:
        tensors = _whole(path, file)
        for part in _other_parts(path, file):
            with GgufFile(part) as other:
                more = _whole(part, other)
            tensors = Tensors(tensors.parameters + more.parameters, tensors.size + more.size, 0)
        return _describe(path, file, tensors)


def read_beginning(path: Path, size: int) -> ModelHeader:
    """Return the judged header of a model of which `path` holds the beginning, of `size` bytes when it is whole.

    Raises as `read` does; also where the header has not come to its end yet. Of a split model the totals are those of
    this file alone.
    """
    with GgufFile(path) as file:
        header = _describe(path, file, file.tensors())
        is_split = (file.number("split.count") or 1) > 1
        with _whole_copy(path, file.data_offset, size, is_split=is_split) as copy:
            return judged(header, copy, vocabulary_only=is_split)


@contextmanager
def _whole_copy(path: Path, end: int, size: int, *, is_split: bool) -> Iterator[Path]:
    """Yield a file in memory that has this header and size, and a hole for the weights: the engine looks for their end.

    Of a split model it would look for the other files.
    """
    content = bytearray(path.open("rb").read(end))
    if is_split and (at := content.find(_SPLIT_COUNT)) >= 0:
        content[at + len(_SPLIT_COUNT) : at + len(_SPLIT_COUNT) + 2] = b"\1\0"
    with os.fdopen(os.memfd_create("header"), "wb") as copy:
        copy.write(content)
        copy.flush()
        os.truncate(copy.fileno(), max(size, len(content)))
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def judged(header: ModelHeader, path: Path, *, vocabulary_only: bool = False) -> ModelHeader:
    """Return the header with what the engine says about the file. Forks: for a process of one thread."""
    if header.kind not in (TEXT, "not_causal"):
        return header
    verdict = dry_run.ask(path, vocabulary_only=vocabulary_only)
    if verdict is None:
        return header
    if verdict.cache is not None and verdict.cache.per_token <= _MOST_CACHE:
        header.cache_per_token = verdict.cache.per_token
        header.window_per_token, header.window = verdict.cache.window_per_token, verdict.cache.window
        header.state_bytes = verdict.cache.state
        header.can_quantise_cache = verdict.cache.can_quantise
    if verdict.cause:
        if "tokenizer.ggml.model" in verdict.cause:
            header.kind = "no_vocabulary"
        header.unsupported = dry_run.in_words(verdict.cause)
    elif verdict.kind != TEXT:
        header.kind = verdict.kind
    return header


def _whole(path: Path, file: GgufFile) -> Tensors:
    """Return the file's tensors. Raises ModelLoadFailedError where it is too short for them."""
    tensors = file.tensors()
    if tensors.end > file.size:
        raise ModelLoadFailedError(
            f"{path.name} is cut off: {file.size} bytes of {tensors.end}",
            reason="corrupt",
            size=file.size,
            expected=tensors.end,
        )
    return tensors


def _other_parts(path: Path, file: GgufFile) -> Iterator[Path]:
    """Yield the files beside a split model's first one. Raises ModelLoadFailedError where one is missing."""
    count, number = file.number("split.count") or 1, (file.number("split.no") or 0) + 1
    if count <= 1:
        return
    # llama.cpp finds the other files by the name of the first, and takes no capital letters for its ending.
    named = SplitName.parse(path.name)
    if named is None or (named.number, named.parts, named.ending) != (number, count, ".gguf"):
        expected = f"-{number:05d}-of-{count:05d}.gguf"
        raise ModelLoadFailedError(
            f"{path.name} is file {number} of {count} of a split model, and is not named so: "
            f"its name has to end in {expected}",
            reason="corrupt",
        )
    paths = [path.with_name(name) for name in named.all()]
    if number != 1:
        raise ModelLoadFailedError(
            f"{path.name} is file {number} of {count} of a split model: name the first one, {paths[0].name}",
            reason="corrupt",
        )
    if missing := [part.name for part in paths if not part.is_file()]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelLoadFailedError(
            f"{path.name} is the first of {count} files, of which {', '.join(missing[:3])}{more} is not beside it",
            reason="missing",
            missing=len(missing),
        )
    yield from paths[1:]


def _describe(path: Path, file: GgufFile, tensors: Tensors) -> ModelHeader:
    architecture = file.text("general.architecture")
    if not architecture and file.text("general.type") == "imatrix":
        architecture = "imatrix"  # it names none
    if not architecture:
        raise ModelLoadFailedError("the file names no architecture: it is not a model", reason="corrupt")
    file_type = file.number("general.file_type")
    has_chat_template = file.find("tokenizer.chat_template") is not None

    def own(key: str) -> int | None:
        value = file.number(f"{architecture}.{key}")
        if value is not None and value < 0:
            raise _nonsense(path)
        return value

    width, heads = own("embedding_length"), own("attention.head_count")
    head = width // heads if width and heads else None
    header = ModelHeader(
        architecture=architecture,
        name=file.text("general.name"),
        parameters=tensors.parameters,
        tensor_bytes=tensors.size,
        quantisation=None if file_type is None else FILE_TYPES.get(file_type, f"type {file_type}"),
        block_count=own("block_count"),
        context_length=own("context_length"),
        embedding_length=width,
        head_count=heads,
        head_count_kv=own("attention.head_count_kv") or heads,
        key_length=own("attention.key_length") or head,
        value_length=own("attention.value_length") or head,
        vocabulary=file.length("tokenizer.ggml.tokens") or own("vocab_size"),
        end_token=file.number("tokenizer.ggml.eos_token_id"),
        has_chat_template=has_chat_template,
        chat_family=None if has_chat_template else families.family_of(file.control_texts()).name,
        has_tools=file.holds(_TEMPLATE, b"tools"),
        has_thinking=file.holds(_TEMPLATE, b"enable_thinking", b"reasoning_content", b"thinking", b"<think>"),
        kind=_kind(file, architecture, tensors),
    )
    kept = _heads_of_layers(file, header)
    if kept is not None and header.key_length and header.value_length:
        header.cache_per_token = 2 * sum(kept) * (header.key_length + header.value_length)
    if (header.kv_bytes_per_token() or 0) > _MOST_CACHE:
        raise _nonsense(path)
    return header


def _heads_of_layers(file: GgufFile, header: ModelHeader) -> list[int] | None:
    """Return for each layer how many heads it keeps of every token; None where the header does not say.

    A hybrid's recurrent layers keep none: they are those of no heads, those that `recurrent_layers` names, or all but
    each n-th one.
    """
    layers, name = header.block_count or 0, header.architecture
    if not 0 < layers <= MAX_LAYERS or header.head_count_kv is None:
        return None
    heads = file.numbers(f"{name}.attention.head_count_kv") or [header.head_count_kv]
    heads = heads * layers if len(heads) == 1 else heads[:layers]
    if min(heads, default=0) < 0:
        return None
    if interval := file.number(f"{name}.full_attention_interval") or 0:
        heads = [count if number % interval == 0 else 0 for number, count in enumerate(heads, 1)]
    recurrent = file.numbers(f"{name}.attention.recurrent_layers")
    return [count for number, count in enumerate(heads) if not any(recurrent[number : number + 1])]


def _kind(file: GgufFile, architecture: str, tensors: Tensors) -> str:
    """Return which of `model_kind.KINDS` the header says that this is; the engine knows more."""
    declared = file.text("general.type")
    if architecture == "controlvector":
        return "control_vector"
    if declared == "adapter" or file.find("adapter.type") is not None:
        return "adapter"
    if declared == "mmproj" or architecture == "clip":
        return "projector"
    if declared == "imatrix" or architecture == "imatrix":
        return "calibration"
    if not tensors.parameters and (file.number("split.count") or 1) <= 1:
        return "vocabulary"
    pooling = file.number(f"{architecture}.pooling_type") or 0
    if pooling > 0:
        return "reranker" if pooling == _RANK else "embeddings"
    if file.text("tokenizer.ggml.model") in ("no_vocab", "none"):
        return "no_vocabulary"
    return "not_causal" if file.truth(f"{architecture}.attention.causal") is False else TEXT


def _nonsense(path: Path) -> ModelLoadFailedError:
    return ModelLoadFailedError(f"the header of {path.name} holds numbers that no model has", reason="corrupt")


def main(argv: list[str]) -> int:
    if not (len(argv) == 1 or (len(argv) == 2 and argv[1].isdecimal())):
        sys.stderr.write("usage: rbee model-header PATH [SIZE]\n")
        return 2
    path = Path(argv[0])
    _limit()
    try:
        printed: Any = judged(read(path), path) if len(argv) == 1 else read_beginning(path, int(argv[1]))
        code = 0
    except ModelLoadFailedError as exc:
        printed = to_body(exc)
        code = 1
    except MemoryError:
        message = f"the header of {path.name} takes more memory than any model's"
        printed = to_body(ModelLoadFailedError(message, reason="corrupt"))
        code = 1
    sys.stdout.buffer.write(msgspec.json.encode(printed) + b"\n")
    return code


def _limit() -> None:
    """Bound what this process may take: where it wants more, allocating fails, or the kernel ends it."""
    # The kernel counts whole seconds, from the start of the process.
    seconds = int(time.process_time() + CPU_SECONDS + 0.5)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    for kind, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
