"""Reads a GGUF file's header with llama.cpp's own reader, and prints it as one JSON object.

This is the hidden command `rbee model-header PATH`: it runs in a process of its own, so that a file made to crash the
reader crashes nobody else. Exit code 1 comes with the error object instead of the header.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from rbee.errors import ModelLoadFailedError, to_body
from rbee.wire.gguf import ModelHeader

FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""The values of `enum llama_ftype` (llama.h)."""

_NUMBERS: Final = {
    0: ("u8", ctypes.c_uint8), 1: ("i8", ctypes.c_int8), 2: ("u16", ctypes.c_uint16), 3: ("i16", ctypes.c_int16),
    4: ("u32", ctypes.c_uint32), 5: ("i32", ctypes.c_int32), 10: ("u64", ctypes.c_uint64), 11: ("i64", ctypes.c_int64),
}  # fmt: skip
"""`enum gguf_type` → getter's suffix and C type, for whole numbers."""
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_TEXT: Final = 200


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def libraries() -> Path:
    """Return the folder that holds the engine's shared libraries."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.submodule_search_locations:
        raise ModelLoadFailedError("the engine (llama-cpp-python) is not installed", reason="engine")
    return Path(found.submodule_search_locations[0]) / "lib"


def read(path: Path) -> ModelHeader:
    """Return the header of the model in `path`.

    Raises ModelLoadFailedError whose `reason` is `missing`, `not_gguf` or `corrupt`. A hostile file may end the
    process.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        size = path.stat().st_size
    except OSError as exc:
        raise ModelLoadFailedError(
            f"the model file {path.name} could not be read: {exc.strerror}", reason="missing"
        ) from exc
    if magic != b"GGUF":
        raise ModelLoadFailedError(f"{path.name} is not a GGUF file", reason="not_gguf")
    base = ctypes.CDLL(str(libraries() / "libggml-base.so.0"))
    # Without this the reader's complaints go to stderr; the reason it gives is a line of C++ for nobody.
    base.ggml_log_set(_silence, None)
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = (ctypes.c_char_p, _InitParams)
    context = base.gguf_init_from_file(bytes(path), _InitParams(True, None))
    if not context:
        raise ModelLoadFailedError(f"the header of {path.name} is corrupt or cut off", reason="corrupt")
    file_header = _File(base, ctypes.c_void_p(context))
    parameters, tensor_bytes, end = file_header.tensors()
    if end > size:
        raise ModelLoadFailedError(
            f"{path.name} is cut off: {size} bytes of {end}", reason="corrupt", size=size, expected=end
        )
    return _describe(file_header, parameters, tensor_bytes)


_silence: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


class _File:
    """Typed access to the pairs of an open header; the reader aborts when asked for the wrong type."""

    def __init__(self, base: Any, context: ctypes.c_void_p) -> None:
        self._base = base
        self._context = context

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._base, name)
        function.restype = result
        return function(self._context, *arguments)

    def find(self, key: str) -> tuple[ctypes.c_int64, int] | None:
        found = self._call("gguf_find_key", ctypes.c_int64, key.encode())
        if found < 0:
            return None
        place = ctypes.c_int64(found)
        return place, self._call("gguf_get_kv_type", ctypes.c_int, place)

    def number(self, key: str) -> int | None:
        """Return a whole number; of an array the largest, since some models give one for each layer."""
        if (found := self.find(key)) is None:
            return None
        place, kind = found
        if kind in _NUMBERS:
            suffix, result = _NUMBERS[kind]
            return int(self._call(f"gguf_get_val_{suffix}", result, place))
        if kind == _ARRAY and (element := _NUMBERS.get(self._call("gguf_get_arr_type", ctypes.c_int, place))):
            data = self._call("gguf_get_arr_data", ctypes.POINTER(element[1]), place)
            return max(data[: self.length(key) or 0], default=None)
        return None

    def length(self, key: str) -> int | None:
        """Return the number of elements of an array."""
        if (found := self.find(key)) is None or found[1] != _ARRAY:
            return None
        return int(self._call("gguf_get_arr_n", ctypes.c_size_t, found[0]))

    def text(self, key: str) -> str | None:
        """Return a short text without control characters: it may be shown on a terminal."""
        if (found := self.find(key)) is None or found[1] != _STRING:
            return None
        raw = self._call("gguf_get_val_str", ctypes.c_char_p, found[0]).decode("utf-8", "replace")
        return "".join(letter if letter.isprintable() else "�" for letter in raw[:_MAX_TEXT])

    def tensors(self) -> tuple[int, int, int]:
        """Return the number of weights, their bytes, and the least size of a file that holds them."""
        parameters = total = 0
        end = start = int(self._call("gguf_get_data_offset", ctypes.c_size_t))
        for number in range(self._call("gguf_get_n_tensors", ctypes.c_int64)):
            place = ctypes.c_int64(number)
            extents = self._call("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64), place)
            parameters += extents[0] * extents[1] * extents[2] * extents[3]
            size = self._call("gguf_get_tensor_size", ctypes.c_size_t, place)
            total += size
            end = max(end, start + self._call("gguf_get_tensor_offset", ctypes.c_size_t, place) + size)
        return parameters, total, end


def _describe(file: _File, parameters: int, tensor_bytes: int) -> ModelHeader:
    architecture = file.text("general.architecture")
    if not architecture:
        raise ModelLoadFailedError("the file names no architecture: it is not a model", reason="corrupt")
    file_type = file.number("general.file_type")

    def own(key: str) -> int | None:
        return file.number(f"{architecture}.{key}")

    width, heads = own("embedding_length"), own("attention.head_count")
    head = width // heads if width and heads and heads > 0 else None
    return ModelHeader(
        architecture=architecture,
        name=file.text("general.name"),
        parameters=parameters,
        tensor_bytes=tensor_bytes,
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


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if len(argv) != 1:
        sys.stderr.write("usage: rbee model-header PATH\n")
        return 2
    try:
        printed: Any = read(Path(argv[0]))
        code = 0
    except ModelLoadFailedError as exc:
        printed = to_body(exc)
        code = 1
    sys.stdout.buffer.write(msgspec.json.encode(printed) + b"\n")
    return code
