"""Typed access to a GGUF file's header, by llama.cpp's own reader."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from rbee.errors import ModelLoadFailedError
from rbee.wire.model_kind import UNKNOWN, unsupported
from rbee.worker.llama import isolation
from rbee.worker.output.printable import printable

_NUMBERS: Final = {
    0: ("u8", ctypes.c_uint8), 1: ("i8", ctypes.c_int8), 2: ("u16", ctypes.c_uint16), 3: ("i16", ctypes.c_int16),
    4: ("u32", ctypes.c_uint32), 5: ("i32", ctypes.c_int32), 10: ("u64", ctypes.c_uint64), 11: ("i64", ctypes.c_int64),
}  # fmt: skip
"""`enum gguf_type` → getter's suffix and C type, for whole numbers."""
_BOOL: Final = 7
_ELEMENTS: Final[dict[int, Any]] = {kind: element for kind, (_, element) in _NUMBERS.items()} | {_BOOL: ctypes.c_uint8}
_INT32: Final = 5
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_TEXT: Final = 200
_CONTROL_KINDS: Final = frozenset((2, 3))
"""Of `tokenizer.ggml.token_type`: unknown tokens are read as control tokens (llama-vocab.cpp)."""
MAX_LAYERS: Final = 4096
"""Elements of an array of numbers that are looked at; what has one for each layer has hundreds at most."""
_MAX_TYPE: Final = 1000
"""The numbers of tensor types are given one after another, and are below 50; one above this is damage."""


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class Tensors(NamedTuple):
    """The number of weights, their bytes, and the least size of a file that holds them."""

    parameters: int
    size: int
    end: int


def libraries() -> Path:
    """Return the folder that holds the engine's shared libraries."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise ModelLoadFailedError("the engine (llama-cpp-python) is not installed", reason="engine")
    return Path(spec.submodule_search_locations[0]) / "lib"


class GgufFile:
    """An open header; `with` frees its memory. A hostile file may end the process.

    Raises ModelLoadFailedError whose `reason` is `missing`, `not_gguf`, `corrupt`, or `unsupported` where a sound file
    holds what this engine does not know.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                beginning = file.read(_LOOKED_AT)
            self.size = path.stat().st_size
        except OSError as exc:
            raise ModelLoadFailedError(
                f"the model file {path.name} could not be read: {exc.strerror}", reason="missing"
            ) from exc
        if not beginning.startswith(b"GGUF"):
            what, hint = _other_format(beginning)
            raise ModelLoadFailedError(f"{path.name} is not a GGUF file{what}", hint=hint, reason="not_gguf")
        self._base = library()
        # The reader aborts when it is asked for a value of another type than the file has: `find` comes first.
        _complaints.clear()
        context = self._base.gguf_init_from_file(bytes(path), _InitParams(True, None))
        if not context:
            raise _refused(path.name.removesuffix(".part"), "\n".join(_complaints))
        self._context = ctypes.c_void_p(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("gguf_free", None)

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._base, name)
        function.restype = result
        return function(self._context, *arguments)

    def find(self, key: str) -> tuple[ctypes.c_int64, int] | None:
        """Return the index of a key, and the type of its value."""
        index = self._call("gguf_find_key", ctypes.c_int64, key.encode())
        if index < 0:
            return None
        argument = ctypes.c_int64(index)
        return argument, self._call("gguf_get_kv_type", ctypes.c_int, argument)

    def number(self, key: str) -> int | None:
        """Return a whole number; of an array the largest, since some models give one for each layer."""
        return max(self.numbers(key), default=None)

    def numbers(self, key: str) -> list[int]:
        """Return the whole numbers of an array, or the one that there is."""
        if (entry := self.find(key)) is None:
            return []
        index, kind = entry
        if kind in _NUMBERS:
            suffix, result = _NUMBERS[kind]
            return [int(self._call(f"gguf_get_val_{suffix}", result, index))]
        if kind == _ARRAY and (element := _ELEMENTS.get(self._call("gguf_get_arr_type", ctypes.c_int, index))):
            data = self._call("gguf_get_arr_data", ctypes.POINTER(element), index)
            return [int(value) for value in data[: min(self.length(key) or 0, MAX_LAYERS)]]
        return []

    def truth(self, key: str) -> bool | None:
        if (entry := self.find(key)) is None or entry[1] != _BOOL:
            return None
        return bool(self._call("gguf_get_val_bool", ctypes.c_uint8, entry[0]))

    def length(self, key: str) -> int | None:
        """Return the number of elements of an array."""
        if (entry := self.find(key)) is None or entry[1] != _ARRAY:
            return None
        return int(self._call("gguf_get_arr_n", ctypes.c_size_t, entry[0]))

    def control_texts(self) -> set[str]:
        """Return the texts of the vocabulary's control tokens."""
        texts, kinds = self.find("tokenizer.ggml.tokens"), self.find("tokenizer.ggml.token_type")
        count = min(self.length("tokenizer.ggml.tokens") or 0, self.length("tokenizer.ggml.token_type") or 0)
        if texts is None or kinds is None or not count:
            return set()
        if [self._call("gguf_get_arr_type", ctypes.c_int, index) for index, _ in (texts, kinds)] != [_STRING, _INT32]:
            return set()
        kind_of = self._call("gguf_get_arr_data", ctypes.POINTER(ctypes.c_int32), kinds[0])[:count]
        # One call each, so that only those are looked at that are needed.
        numbers = [number for number, kind in enumerate(kind_of) if kind in _CONTROL_KINDS]
        found = (
            self._call("gguf_get_arr_str", ctypes.c_char_p, texts[0], ctypes.c_size_t(number)) for number in numbers
        )
        return {text[:_MAX_TEXT].decode("utf-8", "replace") for text in found}

    def text(self, key: str) -> str | None:
        """Return a short text without control characters: it may be shown on a terminal."""
        if (entry := self.find(key)) is None or entry[1] != _STRING:
            return None
        raw = self._call("gguf_get_val_str", ctypes.c_char_p, entry[0])[: 4 * _MAX_TEXT].decode("utf-8", "replace")
        return printable(raw[:_MAX_TEXT], "�")

    def holds(self, key: str, *words: bytes) -> bool:
        """Whether one of these words stands in a text, however long that is."""
        if (entry := self.find(key)) is None or entry[1] != _STRING:
            return False
        raw = self._call("gguf_get_val_str", ctypes.c_char_p, entry[0])
        return any(word in raw for word in words)

    @property
    def data_offset(self) -> int:
        """Where the header ends and the weights begin."""
        return int(self._call("gguf_get_data_offset", ctypes.c_size_t))

    def tensors(self) -> Tensors:
        """Return the totals of the tensors that the header lists."""
        parameters = total = 0
        end = start = self.data_offset
        for number in range(self._call("gguf_get_n_tensors", ctypes.c_int64)):
            index = ctypes.c_int64(number)
            extents = self._call("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64), index)
            parameters += extents[0] * extents[1] * extents[2] * extents[3]
            size = self._call("gguf_get_tensor_size", ctypes.c_size_t, index)
            total += size
            end = max(end, start + self._call("gguf_get_tensor_offset", ctypes.c_size_t, index) + size)
        return Tensors(parameters, total, end)


def library() -> ctypes.CDLL:
    """Load what knows the format; a small part of the engine."""
    base = isolation.load_part(libraries(), "libggml-base.so.0")
    # Without this the reader's complaints go to stderr.
    base.ggml_log_set(_keep, None)
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = (ctypes.c_char_p, _InitParams)
    return base


def _other_format(beginning: bytes) -> tuple[str, str | None]:
    """Return what a file is that is no GGUF file, and what to do about it, as far as its first bytes tell."""
    for pattern, what, hint in _OTHER_FORMATS:
        if re.match(pattern, beginning, re.IGNORECASE | re.DOTALL):
            return what, hint
    return "", None


def _refused(name: str, complaints: str) -> ModelLoadFailedError:
    """Return why the reader gave up, from what it complained about (ggml/src/gguf.cpp).

    What it does not know is told from what is damaged: a sound file must not be fetched again.
    """
    if (kind := _UNKNOWN_TYPE.search(complaints)) and int(kind[1]) < _MAX_TYPE:
        return unsupported(name, f"it has tensors of the type {kind[1]}, which {UNKNOWN}")
    if oldest := _OLDEST_TYPE.search(complaints):
        return unsupported(name, f"it has tensors of the type {oldest[1]}, which this engine no longer knows")
    if removed := _REMOVED_TYPE.search(complaints):
        kind_name, _, advice = removed[1].partition(" REMOVED")
        return unsupported(
            name,
            f"it has tensors of the type {kind_name.removeprefix('TYPE_')}, which this engine no longer knows"
            + advice[:60],
        )
    if (version := _VERSION.search(complaints)) and int(version[1]) < _MAX_TYPE:
        return unsupported(name, f"it is of version {version[1]} of the GGUF format, which {UNKNOWN}")
    if "GGUFv1 is no longer supported" in complaints:
        return unsupported(name, "it is of version 1 of the GGUF format, which this engine no longer knows")
    if "endianness" in complaints:
        return unsupported(name, "it was made for machines of the other byte order (big endian)")
    return ModelLoadFailedError(f"the header of {name} is corrupt or cut off", reason="corrupt")


_LOOKED_AT: Final = 64
_CONVERT: Final = "llama.cpp's convert_hf_to_gguf.py makes a GGUF file of such a model, and many publishers offer one"
_OTHER_FORMATS: Final = (
    (rb"$", ": it is empty", None),
    (rb"(tjgg|fmgg|lmgg|algg)", " but of an older format of llama.cpp", "use a newer file of this model"),
    (
        rb"version https://git-lfs",
        " but the note that git keeps in its place",
        "`git lfs pull` fetches the file itself, or `rbee models pull hf:ORG/REPO`",
    ),
    (rb"\s*<(!doctype|html|\?xml|head)", " but a web page", "the server has sent a page in its place: fetch it again"),
    (rb"\s*{", " but JSON text", "is it the answer of a server that had no file to send?"),
    (rb".{8}{\s*\"", " but of the format safetensors", _CONVERT),
    (rb"PK\x03\x04", " but a zip archive, or of PyTorch's format", _CONVERT),
    (rb"\x1f\x8b|7z\xbc\xaf|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd|Rar!", " but a packed archive", "unpack it first"),
)  # fmt: skip
"""How files of other formats begin, for people who have the wrong one."""
_UNKNOWN_TYPE: Final = re.compile(r"has invalid ggml type (\d+)")
_REMOVED_TYPE: Final = re.compile(r"of type \d+ \(([^)\n]* REMOVED[^)\n]*)\)")
_OLDEST_TYPE: Final = re.compile(r"of type (\d+) \(DEPRECATED\)")
_VERSION: Final = re.compile(r"this GGUF file is version (\d+) but")

_complaints: Final[list[str]] = []
"""What the reader said about the file that it read last."""


def _take(_level: int, text: bytes, _data: int) -> None:
    if len(_complaints) < _MAX_COMPLAINTS:
        _complaints.append(text[: 4 * _MAX_TEXT].decode("utf-8", "replace"))


_MAX_COMPLAINTS: Final = 20
_keep: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_take)
