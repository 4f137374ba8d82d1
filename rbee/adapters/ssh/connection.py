"""Connects to machines by SSH: runs commands there, copies files, opens connections from there."""

from __future__ import annotations

import socket
import threading
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import paramiko
import trio

from rbee.adapters.ssh import auth, known_hosts, sftp
from rbee.adapters.ssh.failure import translated
from rbee.adapters.ssh.session import open_session
from rbee.adapters.ssh.target import Target, failed
from rbee.errors import RbeeError, SshFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
DEAD_PEER_SECONDS: Final = 5
KEEPALIVE_SECONDS: Final = 1
"""A question at this pace has to be acknowledged within the time above, so that a partition is seen within 10 s."""
MAX_OUTPUT: Final = 16 * 1024 * 1024
"""What a command may write: far more than any of ours does, also a build with all its warnings."""
_LIMITER: Final = trio.CapacityLimiter(64)
_STREAMS: Final = trio.CapacityLimiter(1024)
"""paramiko blocks: each call takes a thread, and each stream one or two for as long as it lasts."""


class Completed(NamedTuple):
    """A command that has ended; its output is text, with what is no UTF-8 replaced."""

    code: int
    output: str
    errors: str


class Connection:
    """An open connection; made by `connect`, which closes it.

    Everything here raises SshFailedError. Cancelled, it closes the connection: what runs on the other side goes on.
    """

    def __init__(self, transport: paramiko.Transport, target: Target, host_key: str) -> None:
        self._transport = transport
        self._target = target
        self.host_key = host_key

    @property
    def is_open(self) -> bool:
        return self._transport.is_active()

    async def run(self, command: str, stdin: bytes = b"", heard: Callable[[str], None] | None = None) -> Completed:
        """Run a command and return what it wrote; `heard` gets each line of its output as it comes.

        Raises SshFailedError for one that writes more than MAX_OUTPUT. The login shell reads `command`, and may not be
        POSIX: scripts go over stdin, to `sh -s`.
        """
        return await self._in_thread(partial(self._run, command, stdin, heard))

    def _run(self, command: str, stdin: bytes, heard: Callable[[str], None] | None) -> Completed:
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
            told = 0

            while data := channel.recv(65536):
                output.extend(data)
                if len(output) > MAX_OUTPUT:
                    most = f"{MAX_OUTPUT >> 20} MiB"
                    raise SshFailedError(f"{self._target} wrote more than {most} of output", reason="command")
                while heard is not None and (end := output.find(b"\n", told)) >= 0:
                    text = output[told:end].decode("utf-8", "replace")
                    told = end + 1
                    trio.from_thread.run_sync(heard, text)
            reader.join()
            code = channel.recv_exit_status()
        finally:
            channel.close()
        if code == -1:
            raise SshFailedError(f"the connection to {self._target} was lost", reason="command")
        return Completed(code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))

    async def upload(self, file: Path, to: str, *, mode: int, heard: Callable[[int], None] | None = None) -> None:
        """Copy a file to the absolute path `to`; `heard` gets the bytes sent so far. A failure leaves nothing."""

        await self._in_thread(lambda: sftp.upload(self._transport, file, to, mode, heard))

    async def write(self, content: bytes, to: str, *, mode: int) -> None:
        """Write a small file at the absolute path `to`, whole or not at all."""

        await self._in_thread(lambda: sftp.write(self._transport, content, to, mode))

    async def open(self, host: str, port: int) -> Channel:
        """Open a connection from there to `host`, as it is named there; close it."""
        address, here = (host, port), ("127.0.0.1", 0)
        return Channel(
            await self._in_thread(
                lambda: self._transport.open_channel("direct-tcpip", address, here, timeout=CONNECT_SECONDS)
            )
        )

    async def wait_closed(self) -> None:
        """Return once the connection has ended, from whichever side."""
        await trio.to_thread.run_sync(self._transport.join, limiter=_STREAMS, abandon_on_cancel=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=_LIMITER, abandon_on_cancel=True)
        except trio.Cancelled:
            self._transport.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as exc:
            said = str(exc).rstrip(": ")  # paramiko leaves room for a reason that it has not got
            reason = "it stopped answering" if isinstance(exc, TimeoutError) else said or "the connection was lost"
            if isinstance(exc, OSError) and exc.strerror:
                reason = exc.strerror
            raise SshFailedError(f"{self._target}: {reason}", reason="command") from exc


def _read_errors(channel: paramiko.Channel, into: bytearray) -> None:
    """Read the second stream to its end, and keep the beginning."""
    while data := channel.recv_stderr(65536):
        if len(into) < MAX_OUTPUT:
            into.extend(data)


class Channel:
    """A connection that goes through an SSH connection; its calls raise trio.BrokenResourceError once it has ended."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        channel.settimeout(None)

    async def send_all(self, data: bytes) -> None:
        await self._in_thread(partial(self._channel.sendall, data))

    async def send_eof(self) -> None:
        await self._in_thread(self._channel.shutdown_write)

    async def receive(self, most: int) -> bytes:
        """Return what has come, at most `most` bytes; empty at the end."""
        return await self._in_thread(partial(self._channel.recv, most))

    def close(self) -> None:
        """Close it; whoever waits for it is freed."""
        self._channel.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=_STREAMS, abandon_on_cancel=True)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise trio.BrokenResourceError from exc


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, accept: str | None = None, seconds: float = CONNECT_SECONDS
) -> AsyncIterator[Connection]:
    """Open a connection; `accept` is the fingerprint of a host key that may be new, and is remembered then.

    Raises SshFailedError with `details["reason"]`: timeout, auth, host_key, refused, dns or command.
    """
    trust = known_hosts.Trust(target.host, target.port, target.host_key, (own_known_hosts, known_hosts.USERS))
    opened: list[socket.socket | paramiko.Transport] = []
    try:
        with trio.fail_after(seconds):
            connection, is_new = await trio.to_thread.run_sync(
                partial(_open, target, trust, accept, seconds, opened), limiter=_LIMITER, abandon_on_cancel=True
            )
    except BaseException as exc:
        for resource in reversed(opened):
            resource.close()
        if isinstance(exc, trio.TooSlowError):
            raise failed(target, "timeout", f"timeout, no answer within {seconds:g} s") from None
        raise
    try:
        if is_new:
            trust.remember(own_known_hosts, connection.host_key)
        yield connection
    finally:
        connection._transport.close()


def _open(
    target: Target, trust: known_hosts.Trust, accept: str | None, seconds: float, opened: list[Any]
) -> tuple[Connection, bool]:
    try:
        sock = socket.create_connection((target.host, target.port), timeout=seconds)
        opened.append(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000)
        transport = paramiko.Transport(sock)
        opened.append(transport)
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = seconds
        transport.channel_timeout = seconds
        security = transport.get_security_options()
        security.key_types = trust.algorithms(security.key_types)
        # Half the processor time of the counter modes with a separate hash.
        security.ciphers = sorted(security.ciphers, key=lambda name: "gcm" not in name)
        transport.start_client(timeout=seconds)
        host_key = known_hosts.line(transport.get_remote_server_key())
        is_known = trust.check(host_key, accept)
        auth.authenticate(transport, target)
        transport.set_keepalive(KEEPALIVE_SECONDS)
    except RbeeError:
        raise
    except (OSError, UnicodeError, paramiko.SSHException, EOFError) as exc:
        raise translated(target, exc) from exc
    return Connection(transport, target, host_key), not is_known
