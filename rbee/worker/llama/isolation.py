"""Keeps foreign libraries and variables of the environment out of the engine."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("llama.cpp")

PARTS: Final = ("libggml-base.so.0", "libggml.so.0", "libllama.so")
"""The engine's libraries, each before the one that needs it."""
_PREFIXES: Final = ("GGML_", "LLAMA_")
"""Of the variables that llama.cpp and its package read: they load other libraries, change what is computed or how, or
have the internals written to the log. A user has set them for another program."""
_DEVICES: Final = ("GGML_VK_", "GGML_CUDA_")
"""Of those that say which devices may be used."""
_OURS: Final = {"GGML_NO_BACKTRACE": "1"}
"""Else ggml, in an uncaught exception, starts a debugger on this process: seconds, and its memory in a log."""


def forget_variables() -> list[str]:
    """Remove from this process's environment what would change the engine; returns what was there."""
    found = [name for name in os.environ if name.startswith(_PREFIXES) and not name.startswith(_DEVICES)]
    foreign = sorted(name for name in found if os.environ[name] != _OURS.get(name))
    for name in found:
        del os.environ[name]  # for C too
    os.environ.update(_OURS)
    return foreign


def load_part(folder: Path, name: str) -> ctypes.CDLL:
    """Return a library of the engine, with those that it needs.

    They are opened by their whole path, one after the other. Else the loader looks for what a library needs in
    LD_LIBRARY_PATH first, where another program's may lie; but one of that name that is there already it does not look
    for. The names are those by which they need each other: under `libggml.so` the loader would take it for another
    library and make a second copy, whose backends libllama never sees.
    """
    if foreign := forget_variables():
        log.warning("these variables of the environment are not for this program, and are ignored: %s", foreign)
    for part in PARTS:
        library = ctypes.CDLL(str(folder / part))
        if part == name:
            return library
    raise ValueError(name)
