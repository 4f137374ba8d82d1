"""Loads llama.cpp: its libraries, its processor backends, its log; the only import of llama_cpp."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import re
import sys
import threading
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rbee.errors import ModelLoadFailedError
from rbee.worker.llama.gguf_file import libraries

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("llama.cpp")

_LEVELS: Final = {3: logging.WARNING, 4: logging.ERROR}
"""`enum ggml_log_level` (ggml.h); the levels below are about things that are well."""
_CONTINUED: Final = 5
_NO_CONCERN: Final = ("possible training context overflow",)
"""It compares the pool of all sequences with the context of one."""
_FOLDERS: Final = re.compile(r"(?<![^\s'\"(:=])/(?:[^/\s'\":]+/)+")
"""The folders of an absolute path: of a model, or of a source file where the engine was built. Nobody's business."""
_MAX_BYTES: Final = 2000
"""A line may quote the model file, which may have been made to fill a disk."""


class Complaints:
    """llama.cpp's last warnings and errors, to say why something failed: its functions return only that it did."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._level = 0
        self._lock = threading.Lock()
        self.is_muted = False
        """Set while a decode is being aborted, which llama.cpp complains about like any other failure."""

    def take(self, level: int, text: bytes) -> None:
        if level != _CONTINUED:
            self._level = level
        if self.is_muted or (found := _LEVELS.get(self._level)) is None:
            return
        line = _tidy(text)
        if line and not line.endswith(_NO_CONCERN):
            with self._lock:
                self._lines.append(line)
            log.log(found, "%s", line)

    def clear(self) -> None:
        self.is_muted = False
        with self._lock:
            self._lines.clear()

    def lines(self) -> list[str]:
        with self._lock:
            return list(self._lines)


def _tidy(text: bytes) -> str:
    return _FOLDERS.sub("", text[:_MAX_BYTES].decode("utf-8", "replace")).strip()


complaints: Final = Complaints()


@cache
def api() -> Any:
    """Return the module `llama_cpp.llama_cpp`, with llama.cpp ready to load models.

    Raises ModelLoadFailedError where the engine is not installed or does not run on this machine.
    """
    folder = libraries()
    try:
        # The package's own __init__ needs numpy, which nothing here uses: a module of that name that only knows where
        # its parts lie takes its place.
        if "llama_cpp" not in sys.modules:
            spec = importlib.util.find_spec("llama_cpp")
            assert spec is not None
            sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
        lib: Any = importlib.import_module("llama_cpp.llama_cpp")
        backends = load_backends(folder)
    except (ImportError, OSError, RuntimeError, AttributeError) as exc:
        raise ModelLoadFailedError(f"the engine does not load on this machine: {exc}", reason="engine") from exc
    lib.llama_log_set(_log_callback(lib), None)
    backends.ggml_set_abort_callback(_abort_callback)
    backends.ggml_backend_load_all_from_path(bytes(folder))
    backends.ggml_backend_reg_count.restype = ctypes.c_size_t
    if not backends.ggml_backend_reg_count():
        raise ModelLoadFailedError("the engine has no backend for this machine's processor", reason="engine")
    lib.llama_backend_init()
    return lib


@cache
def load_backends(folder: Path) -> ctypes.CDLL:
    """Return the library that knows the backends.

    It is opened under the name by which libllama needs it: under `libggml.so` the loader would take it for another
    library and make a second copy, whose backends libllama never sees.
    """
    return ctypes.CDLL(str(folder / "libggml.so.0"))


@cache
def _log_callback(lib: Any) -> Any:
    """Return the callback as ctypes wraps it; the cache keeps it alive, since llama.cpp holds only its address."""

    def take(level: int, text: bytes, _data: int) -> None:
        complaints.take(level, text)

    return lib.llama_log_callback(take)


def _log_abort(message: bytes) -> None:
    """Log why ggml ends the process, in the moment before it does; by itself it writes that to stderr as it is."""
    log.critical("%s", _tidy(message))


_abort_callback: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_log_abort)


class _ThreadpoolParams(ctypes.Structure):
    """`struct ggml_threadpool_params` (ggml.h)."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class Threadpool:
    """Threads that stay between decodes; without it ggml makes new ones for every token (it is built without OpenMP).

    `poll` is how long, from 0 to 100, they spin for the next step before they sleep.
    """

    def __init__(self, threads: int, *, poll: int) -> None:
        self.handle: int | None = None
        ggml = load_backends(libraries())
        ggml.ggml_backend_reg_by_name.restype = ctypes.c_void_p
        ggml.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
        backend = ctypes.c_void_p(ggml.ggml_backend_reg_by_name(b"CPU"))
        # The CPU backend is one of several libraries, chosen at run time: only it can say where its functions are.
        new = ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_new")
        free = ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_free")
        if not new or not free:
            return
        ggml.ggml_threadpool_params_init.restype = None
        params = _ThreadpoolParams()
        ggml.ggml_threadpool_params_init(ctypes.byref(params), threads)
        params.poll = poll
        self.handle = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(new)(ctypes.addressof(params))
        self._free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(free)

    def close(self) -> None:
        """End the threads; no context may use them any more."""
        if self.handle is not None:
            self._free(self.handle)
            self.handle = None
