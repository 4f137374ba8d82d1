"""An open SSH connection: runs commands on the other machine, copies files, opens connections from there."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import paramiko
import trio

from rbee.adapters.ssh import sftp, shell_copy
from rbee.adapters.ssh.session import open_session
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rbee.adapters.ssh.target import SshServer

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOST: Final = ("Server connection dropped", "Socket is closed")
"""paramiko's own words for the end of the stream."""
OPEN_SECONDS: Final = 10.0
"""For the other machine to open a connection of its own."""
MAX_OUTPUT: Final = 16_000_000
"""What a command may write: far more than any of ours does, also a build with all its warnings."""
CALLS: Final = trio.CapacityLimiter(64)
"""paramiko blocks: each call takes a thread."""
STREAMS: Final = trio.CapacityLimiter(1024)
"""And each stream one or two, for as long as it lasts."""


class Completed(NamedTuple):
    """A command that has ended; its output is text, in which invalid UTF-8 is replaced."""

    code: int
    output: str
    errors: str


class Channel:
    """An open TCP connection of the other machine; its calls raise trio.BrokenResourceError once it has ended."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        channel.settimeout(None)

    async def send_all(self, data: bytes) -> None:
        await self._in_thread(partial(self._channel.sendall, data))

    async def receive(self, most: int) -> bytes:
        """Return what has come, at most `most` bytes; empty at the end."""
        return await self._in_thread(partial(self._channel.recv, most))

    def close(self) -> None:
        """Close it; calls that wait for it end."""
        self._channel.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=STREAMS, abandon_on_cancel=True)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise trio.BrokenResourceError from exc


class SshConnection:
    """Made by `handshake.connect`, which closes it.

    All calls raise SshFailedError. A call that is cancelled closes the connection; its command runs on over there.
    """

    def __init__(
        self, transport: paramiko.Transport, server: SshServer, host_key: str, *, is_proxied: bool = False
    ) -> None:
        self._transport = transport
        self.server = server
        """Where it leads, as ssh's settings say."""
        self.host_key = host_key
        self._sftp_obstacles: dict[str, str | None] = {}
        self.is_proxied = is_proxied
        """Whether other machines or a program lead there."""

    @property
    def is_open(self) -> bool:
        return self._transport.is_active()

    async def run(self, command: str, stdin: bytes = b"", on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command and return what it wrote; `on_line` gets each line of its output as it comes.

        Raises SshFailedError for one that writes more than MAX_OUTPUT. The login shell reads `command`, and may not be
        POSIX: scripts go over stdin, to `sh -s`.
        """
        return await self._in_thread(partial(self._run, command, stdin, on_line))

    def _run(self, command: str, stdin: bytes, on_line: Callable[[str], None] | None) -> Completed:
        channel = open_session(self._transport)
        try:
            channel.exec_command(command)
            errors = bytearray()
            # Both must be read, or the other side blocks when the window of one is full.
            reader = threading.Thread(target=_read_errors, args=(channel, errors), daemon=True)
            reader.start()
            with suppress(OSError):  # a command that has ended already says more by its exit
                channel.sendall(stdin)
                channel.shutdown_write()
            output = bytearray()
            passed_on = 0
            while data := channel.recv(65536):
                output.extend(data)
                if len(output) > MAX_OUTPUT:
                    most = f"{MAX_OUTPUT // 1_000_000} MB"
                    raise SshFailedError(f"{self.server} wrote more than {most} of output", reason="command")
                while on_line is not None and (end := output.find(b"\n", passed_on)) >= 0:
                    text = output[passed_on:end].decode("utf-8", "replace")
                    passed_on = end + 1
                    trio.from_thread.run_sync(on_line, text)
            reader.join()
            code = channel.recv_exit_status()
        finally:
            channel.close()
        if code == -1:
            raise SshFailedError(f"the connection to {self.server} was lost", reason="command")
        return Completed(code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))

    async def upload(self, file: Path, to: str, *, mode: int, on_progress: Callable[[int], None] | None = None) -> None:
        """Copy a file to the absolute path `to`; `on_progress` gets the bytes sent so far. A failure leaves nothing."""
        await self._in_thread(lambda: self._upload(file, to, mode, on_progress))

    def _upload(self, file: Path, to: str, mode: int, on_progress: Callable[[int], None] | None) -> None:
        if self._obstacle(_folder(to)) is None:
            sftp.upload(self._transport, file, to, mode, on_progress)
            return
        with file.open("rb") as source:
            shell_copy.upload(self._transport, source, to, mode, on_progress)

    async def sftp_obstacle(self, folder: str) -> str | None:
        """Return why files do not get to the folder by SFTP, but through the shell; None where they do."""
        return await self._in_thread(lambda: self._obstacle(folder))

    def _obstacle(self, folder: str) -> str | None:
        """Ask once for each folder, as SFTP may show only some; and once for all where it is off, or hangs."""
        known = self._sftp_obstacles
        if folder not in known:
            found = next((words for words in known.values() if words not in (None, sftp.ANOTHER_ROOT)), None)
            known[folder] = found or sftp.obstacle(self._transport, folder)
            if known[folder] is not None:
                log.info("%s: files go through the shell, and not by SFTP: %s", self.server, known[folder])
        return known[folder]

    async def write(self, content: bytes, to: str, *, mode: int) -> None:
        """Write a small file at the absolute path `to`, whole or not at all."""
        await self._in_thread(lambda: self._write(content, to, mode))

    def _write(self, content: bytes, to: str, mode: int) -> None:
        (sftp if self._obstacle(_folder(to)) is None else shell_copy).write(self._transport, content, to, mode)

    async def open(self, host: str, port: int) -> Channel:
        """Open a connection from there to `host`, as that machine names it; the caller closes it."""
        address, here = (host, port), ("127.0.0.1", 0)
        return Channel(
            await self._in_thread(
                lambda: self._transport.open_channel("direct-tcpip", address, here, timeout=OPEN_SECONDS)
            )
        )

    def close(self) -> None:
        """Close it; calls that run fail."""
        self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until either side has ended the connection."""
        await trio.to_thread.run_sync(self._transport.join, limiter=STREAMS, abandon_on_cancel=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=CALLS, abandon_on_cancel=True)
        except trio.Cancelled:
            self._transport.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as exc:
            # paramiko leaves room for a reason that it has not got.
            words = "" if str(exc).startswith(_LOST) else str(exc).rstrip(": ")
            reason = "it stopped answering" if isinstance(exc, TimeoutError) else words or "the connection was lost"
            if isinstance(exc, OSError) and exc.strerror:
                reason = exc.strerror
            raise SshFailedError(f"{self.server}: {reason}", reason="command") from exc


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _read_errors(channel: paramiko.Channel, into: bytearray) -> None:
    """Read the second stream to its end, and keep the beginning."""
    while data := channel.recv_stderr(65536):
        if len(into) < MAX_OUTPUT:
            into.extend(data)
