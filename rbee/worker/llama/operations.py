"""Counts the operations of a decode while another thread computes them, and makes it end early."""

from __future__ import annotations

import ctypes
from typing import Any, Final

_WORDS: Final = 8
"""Of 8 bytes each: more than a sem_t of any C library has."""
_MOST: Final = 2**31 - 1
"""SEM_VALUE_MAX of glibc and musl."""


class Operations:
    """What ggml calls between any two operations of a decode, in the thread that computes: sem_post(3).

    A Python callback would take the GIL each time; sem_post needs none, adds one to a number that any thread can read,
    and returns 0, whose low byte, all that a C bool is, tells ggml to go on. Where the number is the highest possible
    it returns -1, which is true, and the decode is aborted.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._semaphore = (ctypes.c_uint64 * _WORDS)()
        self.clear()

    def attach(self, params: Any, callback_type: Any) -> None:
        """Set the callback in the parameters of a context, which must not outlive this object."""
        params.abort_callback = ctypes.cast(self._libc.sem_post, callback_type)
        params.abort_callback_data = ctypes.addressof(self._semaphore)

    def clear(self) -> None:
        """Count from 0 again, and abort nothing."""
        self._libc.sem_init(self._semaphore, 0, 0)

    def abort(self) -> None:
        """Make the decode that runs end at its next operation, and each that begins before `clear`."""
        self._libc.sem_init(self._semaphore, 0, _MOST)

    @property
    def are_aborted(self) -> bool:
        return self.count() == _MOST

    def count(self) -> int:
        """Return how many there were since `clear`."""
        value = ctypes.c_int()
        self._libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return value.value
