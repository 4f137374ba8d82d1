"""Loads llama.cpp: its libraries, its processor backends, its log; the only import of llama_cpp."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbee.errors import ModelLoadFailedError
from rbee.worker.llama.complaints import Complaints, tidy
from rbee.worker.llama.gguf_file import libraries
from rbee.worker.llama.isolation import load_part

if TYPE_CHECKING:
    from rbee.worker.llama.functions import Functions

log = logging.getLogger("llama.cpp")


class Llama(NamedTuple):
    """llama.cpp, ready to load models, once in a process: its log and its backends are the process's own."""

    functions: Functions
    complaints: Complaints
    libllama: ctypes.CDLL
    ggml: ctypes.CDLL
    """The library that knows the backends."""
    callbacks: tuple[object, ...]
    """What llama.cpp holds only the address of: it lives as long as this."""


@cache
def load() -> Llama:
    """Load llama.cpp.

    Raises ModelLoadFailedError where the engine is not installed or does not run on this machine.
    """
    folder = libraries()
    try:
        ggml = load_part(folder, "libggml.so.0")
        # The package's own __init__ needs numpy, which nothing here uses: a module of that name that only knows where
        # its parts lie takes its place.
        if "llama_cpp" not in sys.modules and (spec := importlib.util.find_spec("llama_cpp")) is not None:
            sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
        module: Any = importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as exc:
        raise ModelLoadFailedError(f"the engine does not load on this machine: {exc}", reason="engine") from exc
    functions: Functions = module
    complaints = Complaints()
    callback = functions.llama_log_callback(lambda level, text, _data: complaints.take(level, text))
    functions.llama_log_set(callback, None)
    ggml.ggml_set_abort_callback(_abort_callback)
    ggml.ggml_backend_load_all_from_path(bytes(folder))
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    if not ggml.ggml_backend_reg_count():
        functions.llama_log_set(None, None)  # the callback goes with this call
        raise ModelLoadFailedError("the engine has no backend for this machine's processor", reason="engine")
    functions.llama_backend_init()
    return Llama(functions, complaints, module._lib, ggml, (callback,))


def _log_abort(message: bytes) -> None:
    """Log why ggml ends the process, in the moment before it does; by itself it writes that to stderr as it is."""
    log.critical("%s", tidy(message))


_abort_callback: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_log_abort)
