"""Reads what is piped into a command, and does not wait for ever where nobody pipes anything."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

STDIN: Final = 0
NOTICE_SECONDS: Final = 2.0
"""Seconds without a byte before the user is told what is waited for."""
GIVE_UP_SECONDS: Final = 5.0
"""Seconds without a byte, after that, before an input is taken for one that nobody writes."""
_CHUNK: Final = 1 << 16


def read(limit: int, note: Callable[[str], None], *, is_needed: bool) -> bytes | None:
    """Return at most `limit` bytes of standard input; None where there is none, as on a terminal.

    Unless `is_needed`, an input into which nobody writes is given up: `ssh HOST command`, a service manager or a script
    may pass on one that stays open for ever. `note` tells the user what is waited for. Raises InvalidRequestError.
    """
    if os.isatty(STDIN):
        return None
    try:
        if not is_needed and not _comes(note):
            return None
        return _read_to_end(limit, note)
    except OSError as exc:
        # `nohup` opens it for writing only.
        if exc.errno == errno.EBADF:
            return None
        raise InvalidRequestError(
            f"standard input cannot be read: {exc.strerror}", field="prompt", rule="a readable standard input"
        ) from exc


def _read_to_end(limit: int, note: Callable[[str], None]) -> bytes:
    data = bytearray()
    is_told = False
    while len(data) < limit:
        if not is_told and not _is_ready(NOTICE_SECONDS):
            note("Waiting for the end of standard input" if data else "Waiting for text on standard input")
            is_told = True
        _is_ready(None)
        try:
            piece = os.read(STDIN, min(_CHUNK, limit - len(data)))
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


def _comes(note: Callable[[str], None]) -> bool:
    """Wait for the first byte, or the end; returns whether it came, or somebody is there to write it."""
    if _is_ready(NOTICE_SECONDS) or (stat.S_ISFIFO(os.fstat(STDIN).st_mode) and _has_producer()):
        return True
    note(f"Waiting {GIVE_UP_SECONDS:g} s for standard input, which is added to the prompt; `< /dev/null` means none")
    if _is_ready(GIVE_UP_SECONDS):
        return True
    note("Nothing came on standard input; the prompt is --prompt alone")
    return False


def _has_producer() -> bool:
    """Whether another program writes into the pipe, and may take its time: `make 2>&1 | rbee infer`.

    Our ancestors are none: they pass on an open pipe to which they may never write.
    """
    from rbee.adapters.daemon import pipes

    return not pipes.writers(STDIN) <= pipes.ancestors()


def _is_ready(seconds: float | None) -> bool:
    """Whether a byte or the end comes within that time; a regular file is always ready."""
    poll = select.poll()
    poll.register(STDIN, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
