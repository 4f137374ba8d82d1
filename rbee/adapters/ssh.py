"""Connects to machines by SSH: runs commands there, copies files, opens connections from there."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeVar

import paramiko
import trio

from rbee.adapters import known_hosts
from rbee.errors import RbeeError, SshFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
DEAD_PEER_SECONDS: Final = 6
KEEPALIVE_SECONDS: Final = 3
"""A question at this pace has to be acknowledged within the time above, so that a partition is seen within 10 s."""
MAX_OUTPUT: Final = 16 * 1024 * 1024
"""What a command may write: far more than any of ours does, also a build with all its warnings."""
CHUNK: Final = 255 * 1024
"""What OpenSSH takes as one SFTP packet: 256 KiB with its head (sftp-server.c, SFTP_MAX_MSG_LENGTH)."""
KEY_FILES: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_LIMITER: Final = trio.CapacityLimiter(64)
_STREAMS: Final = trio.CapacityLimiter(1024)
"""paramiko blocks: each call takes a thread, and each stream one or two for as long as it lasts."""


class Target(NamedTuple):
    """Where to connect, and as whom; without `key_path` the agent's and the usual keys are tried.

    `host_key` is the public key that the server must have, in its one-line form.
    """

    host: str
    port: int
    user: str
    key_path: str | None = None
    host_key: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


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
        channel = self._transport.open_session(timeout=CONNECT_SECONDS)
        try:
            channel.exec_command(command)
            errors = bytearray()
            # Both must be read, or the other side blocks when the window of one is full.
            reader = threading.Thread(target=_read_errors, args=(channel, errors), daemon=True)
            reader.start()
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

        def work() -> None:
            with self._sftp() as sftp, file.open("rb") as source:
                try:
                    _copy(source, sftp, to, mode, heard)
                except OSError:
                    with suppress(OSError):
                        sftp.remove(to)  # on a full disk it would be in everybody's way
                    raise

        await self._in_thread(work)

    async def write(self, content: bytes, to: str, *, mode: int) -> None:
        """Write a small file at the absolute path `to`, whole or not at all."""

        def work() -> None:
            with self._sftp() as sftp:
                beside = f"{to}.new"
                with sftp.open(beside, "wb") as target:
                    target.chmod(mode)
                    target.write(content)
                sftp.posix_rename(beside, to)

        await self._in_thread(work)

    def _sftp(self) -> paramiko.SFTPClient:
        sftp = paramiko.SFTPClient.from_transport(self._transport)
        if sftp is None:
            raise SshFailedError(f"{self._target} does not offer SFTP", reason="command")
        return sftp

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
            reason = (
                exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or "the connection was lost"
            )
            raise SshFailedError(f"{self._target}: {reason}", reason="command") from exc


def _read_errors(channel: paramiko.Channel, into: bytearray) -> None:
    """Read the second stream to its end, and keep the beginning."""
    while data := channel.recv_stderr(65536):
        if len(into) < MAX_OUTPUT:
            into.extend(data)


def _copy(source: BinaryIO, sftp: paramiko.SFTPClient, to: str, mode: int, heard: Callable[[int], None] | None) -> None:
    with sftp.open(to, "wb") as target:
        target.set_pipelined(True)
        target.chmod(mode)
        sent = 0
        while chunk := source.read(CHUNK):
            target.write(chunk)
            sent += len(chunk)
            if heard is not None:
                trio.from_thread.run_sync(heard, sent)


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
            raise _failed(target, "timeout", f"no answer within {seconds:g} s") from None
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
        _authenticate(transport, target)
        transport.set_keepalive(KEEPALIVE_SECONDS)
    except RbeeError:
        raise
    except (OSError, UnicodeError, paramiko.SSHException, EOFError) as exc:
        raise _translated(target, exc) from exc
    return Connection(transport, target, host_key), not is_known


def _translated(target: Target, exc: Exception) -> SshFailedError:
    match exc:
        case socket.gaierror() | UnicodeError():  # the latter for what no name can be
            return _failed(target, "dns", f"the name {target.host} is not known")
        case TimeoutError():
            return _failed(target, "timeout", "timeout")
        case OSError(errno=errno.ECONNREFUSED):
            return _failed(target, "refused", f"connection refused at port {target.port}")
        case OSError():
            return _failed(target, "refused", (exc.strerror or str(exc)).lower())
        case paramiko.SSHException() if "banner" in str(exc) or "protocol version" in str(exc):
            return _failed(target, "refused", f"what listens at port {target.port} does not speak SSH")
        case _:
            return _failed(target, "refused", str(exc) or "the connection was closed")


def _failed(target: Target, reason: str, words: str) -> SshFailedError:
    hints = {
        "dns": "look at the spelling of the host, or give its address",
        "timeout": "see that the machine is on and reachable, and that no firewall is in between",
        "refused": "see that sshd runs there, and at which port",
        "auth": f"`ssh-copy-id {target.user}@{target.host}` puts your key there; --ssh-key names another one",
    }
    return SshFailedError(f"SSH to {target} failed: {words}", hint=hints.get(reason), reason=reason)


def _authenticate(transport: paramiko.Transport, target: Target) -> None:
    """Offer keys until one is taken."""
    tried = 0
    with closing(paramiko.Agent()) as agent:  # without one it has no keys
        for key in _keys(target, agent):
            tried += 1
            with suppress(paramiko.AuthenticationException):
                transport.auth_publickey(target.user, key)
                if transport.is_authenticated():
                    return
            if not transport.is_active():
                break
    if tried == 0:
        raise _failed(target, "auth", "there is no key to offer: neither an agent nor a key file")
    raise _failed(target, "auth", f"{target.user} was not let in with {'the key' if tried == 1 else 'any of the keys'}")


def _keys(target: Target, agent: paramiko.Agent) -> Iterator[paramiko.PKey]:
    if target.key_path is not None:
        yield _load(target, target.key_path)
        return
    yield from agent.get_keys()
    for file in KEY_FILES:
        if os.path.exists(path := os.path.expanduser(file)):  # noqa: PTH110, PTH111
            with suppress(SshFailedError):  # one with a passphrase; there may be others
                yield _load(target, path)


def _load(target: Target, path: str) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(Path(path).expanduser())
    except (paramiko.PasswordRequiredException, TypeError) as exc:  # the latter for OpenSSH's own format
        error = _failed(target, "auth", f"the key {Path(path).name} needs its passphrase")
        error.hint = f"`ssh-add {path}` gives it to the agent, before the queen is started"
        raise error from exc
    except FileNotFoundError as exc:
        raise _failed(target, "auth", f"there is no key file {Path(path).name}") from exc
    except (paramiko.SSHException, OSError, ValueError) as exc:
        raise _failed(target, "auth", f"the key file {Path(path).name} cannot be read: {exc}") from exc
