"""Reads the description of a model in a GGUF file's header, and prints it as one JSON object.

This is the hidden command `rbee model-header PATH`: it runs in a process of its own, with limits, so that a file made
to crash the reader, or to keep it busy, harms nobody else. Exit code 1 comes with the error object instead of the
header.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.errors import ModelLoadFailedError, to_body
from rbee.wire.gguf import ModelHeader
from rbee.worker.llama.gguf_file import GgufFile, Tensors

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
CPU_SECONDS: Final = 1
MEMORY_BYTES: Final = 160 << 20
"""Beside what starting Python has taken. A vocabulary of 150,000 with twice as many merges takes 0.03 s and 60 MB."""

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
"""The names of a split model's files; llama.cpp finds the others by that of the first."""
_MOST_CACHE: Final = 1 << 32
"""Bytes of the KV cache for one token above which the numbers are nonsense; what is reckoned with them stays exact."""


def read(path: Path) -> ModelHeader:
    """Return the header of the model in `path`, which may be the first of several files.

    Raises ModelLoadFailedError whose `reason` is `missing`, `not_gguf` or `corrupt`. A hostile file may end the
    process.
    """
    with GgufFile(path) as file:
        tensors = _whole(path, file)
        for part in _other_parts(path, file):
            with GgufFile(part) as other:
                more = _whole(part, other)
            tensors = Tensors(tensors.parameters + more.parameters, tensors.size + more.size, 0)
        return _describe(path, file, tensors)


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
    named = _PART.fullmatch(path.name)
    if named is None or (int(named["number"]), int(named["count"])) != (number, count):
        expected = f"-{number:05d}-of-{count:05d}.gguf"
        raise ModelLoadFailedError(
            f"{path.name} is file {number} of {count} of a split model, and is not named so: "
            f"its name has to end in {expected}",
            reason="corrupt",
        )
    paths = [path.with_name(f"{named['stem']}-{at:05d}-of-{count:05d}.gguf") for at in range(1, count + 1)]
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
    if not architecture:
        raise ModelLoadFailedError("the file names no architecture: it is not a model", reason="corrupt")
    file_type = file.number("general.file_type")

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
        has_chat_template=file.find("tokenizer.chat_template") is not None,
    )
    if (header.kv_bytes_per_token() or 0) > _MOST_CACHE:
        raise _nonsense(path)
    return header


def _nonsense(path: Path) -> ModelLoadFailedError:
    return ModelLoadFailedError(f"the header of {path.name} holds numbers that no model has", reason="corrupt")


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        sys.stderr.write("usage: rbee model-header PATH\n")
        return 2
    path = Path(argv[0])
    _limit()
    try:
        printed: Any = read(path)
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
