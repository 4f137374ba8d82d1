"""Copies files to another machine through its shell, where SFTP is off or shows another root.

Blocks, and raises what paramiko raises, or OSError.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import paramiko
import trio

from rbee.adapters.ssh.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES: Final = 256 * 1024
STALLED_SECONDS: Final = 60.0
"""How long the other side may take no byte and give no answer."""
MAX_WORDS: Final = 64 * 1024
_NO_FOLDER: Final = 66
_WRITE: Final = (
    'p=$(printf "%b." "{path}"); p=${{p%.}}; [ -d "${{p%/*}}" ] || exit {no_folder}; umask 077; '
    'cat >"$p.part" && [ $(($(wc -c <"$p.part"))) -eq {size} ] && chmod {mode:o} "$p.part" && mv -f "$p.part" "$p" '
    '|| {{ rm -f "$p.part"; exit 1; }}'
)
"""A file that did not come whole is not there: a lost connection looks like the end of the file."""
_IS_THERE: Final = 'p=$(printf "%b." "{path}"); p=${{p%.}}; [ -f "$p" ] && rm -f "$p"'


def upload(
    transport: paramiko.Transport, source: BinaryIO, to: str, mode: int, on_progress: Callable[[int], None] | None
) -> None:
    """Copy a file to the absolute path `to`, whole or not at all; `on_progress` gets the bytes sent so far."""
    size = os.fstat(source.fileno()).st_size
    with _started(transport, _WRITE, to, size=size, mode=mode, no_folder=_NO_FOLDER) as command:
        sent = 0
        while sent < size and (chunk := source.read(min(CHUNK_BYTES, size - sent))):
            if not command.send(chunk):
                break
            sent += len(chunk)
            if on_progress is not None:
                trio.from_thread.run_sync(on_progress, sent)
        command.end()


def write(transport: paramiko.Transport, content: bytes, to: str, mode: int) -> None:
    """Write a small file at the absolute path `to`, whole or not at all."""
    with _started(transport, _WRITE, to, size=len(content), mode=mode, no_folder=_NO_FOLDER) as command:
        command.send(content)
        command.end()


def take_away(transport: paramiko.Transport, path: str) -> bool:
    """Remove a file; returns whether it was there."""
    with _started(transport, _IS_THERE, path) as command:
        return command.status() == 0


class _Command:
    """A command of a POSIX shell that runs there, whatever the login shell is."""

    def __init__(self, channel: paramiko.Channel, text: str) -> None:
        self._channel = channel
        channel.settimeout(STALLED_SECONDS)
        # Single quotes, in which no shell sees anything but the end of them: there is no other one inside.
        channel.exec_command(f"exec sh -c '{text}'")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def send(self, data: bytes) -> bool:
        """Send data; returns whether the command still takes it."""
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            return False  # it has ended, and its exit says more
        return True

    def status(self) -> int:
        """Return its exit status, once it has ended."""
        if not self._channel.status_event.wait(STALLED_SECONDS):
            raise TimeoutError
        return self._channel.recv_exit_status()

    def end(self) -> None:
        """Say that all was sent, and raise why the command failed."""
        if not self._channel.closed:
            self._channel.shutdown_write()
        words = bytearray()
        while len(words) < MAX_WORDS and (data := self._channel.recv_stderr(4096)):
            words += data
        if (status := self.status()) == _NO_FOLDER:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if status == -1:
            raise paramiko.SSHException("the connection was lost")
        if status != 0:
            lines = words.decode("utf-8", "replace").strip().splitlines()
            raise paramiko.SSHException(lines[-1].rpartition(": ")[2] if lines else "the file did not come whole")


def _started(transport: paramiko.Transport, text: str, path: str, **values: int) -> _Command:
    """Start a command for a path, which goes in octal digits: no shell takes those apart."""
    octal = "".join(f"\\0{byte:03o}" for byte in path.encode())
    return _Command(open_session(transport), text.format(path=octal, **values))
