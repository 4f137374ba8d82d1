"""Threads that stay between decodes; without it ggml makes new ones for every token (it is built without OpenMP)."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.worker.llama.functions import ContextHandle, ThreadpoolHandle
    from rbee.worker.llama.library import Llama


class _Params(ctypes.Structure):
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
    """`threads` compute threads; `poll` is how long, from 0 to 100, they spin for the next step before they sleep."""

    def __init__(self, llama: Llama, threads: int, *, poll: int) -> None:
        self._handle: ThreadpoolHandle | None = None
        self._llama = llama
        ggml = llama.ggml
        ggml.ggml_backend_reg_by_name.restype = ctypes.c_void_p
        ggml.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
        backend = ctypes.c_void_p(ggml.ggml_backend_reg_by_name(b"CPU"))
        # The CPU backend is one of several libraries, chosen at run time: only it can say where its functions are.
        new = ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_new")
        free = ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_free")
        if not new or not free:
            return
        ggml.ggml_threadpool_params_init.restype = None
        params = _Params()
        ggml.ggml_threadpool_params_init(ctypes.byref(params), threads)
        params.poll = poll
        self._handle = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(new)(ctypes.addressof(params))
        self._free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(free)

    def attach(self, context: ContextHandle) -> None:
        """Let a context compute with these threads, until it is freed."""
        if self._handle is not None:
            attach = self._llama.libllama.llama_attach_threadpool  # not among the functions that llama_cpp binds
            attach.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
            attach.restype = None
            attach(context, self._handle, self._handle)

    def close(self) -> None:
        """End the threads; no context may use them any more."""
        if self._handle is not None:
            self._free(self._handle)
            self._handle = None
