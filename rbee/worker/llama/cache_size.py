"""Asks the engine how much memory a model's context takes, without taking it: it knows each layer's kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.worker.llama.context_params import context_params

if TYPE_CHECKING:
    from rbee.worker.llama.functions import ModelHandle
    from rbee.worker.llama.library import Llama

TOKENS: Final = 65_536
"""So long a context that llama.cpp's rounding to 10 KB is less than half a byte a token, and no window is as long."""
_SIZE: Final = re.compile(r"(?P<what>\w+): size = +(?P<size>[\d.]+) MiB \( *(?P<cells>\d+) cells")
"""What llama.cpp writes for each cache (llama-kv-cache.cpp, llama-memory-recurrent.cpp)."""
_RECURRENT: Final = "llama_memory_recurrent"


class CacheSize(msgspec.Struct):
    """Bytes: of each token in layers that see all of them, of each in layers that see `window`, and of a sequence.

    `can_quantise` says whether all of these can be kept with fewer than 16 bits.
    """

    per_token: int = 0
    window_per_token: int = 0
    window: int = 0
    state: int = 0
    can_quantise: bool | None = None


def measure(llama: Llama, model: ModelHandle) -> CacheSize | None:
    """Return what a context of this model takes, or None where the engine makes none. The log is this call's."""
    lib = llama.functions
    lines: list[str] = []
    callback = lib.llama_log_callback(lambda _level, text, _data: lines.append(text.decode("utf-8", "replace")))
    lib.llama_log_set(callback, None)
    if not lib.llama_init_from_model(model, context_params(lib, slots=1, length=TOKENS)):
        return None
    return read("".join(lines), window=lib.llama_model_n_swa(model))


def can_quantise(llama: Llama, model: ModelHandle) -> bool:
    """Return whether the engine makes a context of fewer than 16 bits a value for this model."""
    lib = llama.functions
    return bool(lib.llama_init_from_model(model, context_params(lib, slots=1, length=TOKENS, kv="q8_0")))


def read(log: str, *, window: int) -> CacheSize:
    """Return the sizes that a log of `measure` names."""
    found = CacheSize()
    for line in _SIZE.finditer(log):
        size, cells = float(line["size"]) * 2**20, int(line["cells"])
        if line["what"] == _RECURRENT:
            found.state += round(size / cells)
        elif cells >= TOKENS:
            found.per_token += round(size / cells)
        else:
            found.window_per_token += round(size / cells)
            found.window = window
    return found
