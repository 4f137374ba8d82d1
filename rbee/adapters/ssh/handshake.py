"""Opens SSH connections: the host key is checked first, then a key of the user's is offered."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import paramiko
import trio

from rbee.adapters.ssh import auth, known_hosts
from rbee.adapters.ssh.connection import CALLS, SshConnection
from rbee.adapters.ssh.failure import failed, translated
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rbee.adapters.ssh.target import Target

CONNECT_SECONDS: Final = 10.0
DEAD_PEER_SECONDS: Final = 5
KEEPALIVE_SECONDS: Final = 1
"""A question at this pace has to be acknowledged within the time above, so that a partition is seen within 10 s."""


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, accept: str | None = None, seconds: float = CONNECT_SECONDS
) -> AsyncIterator[SshConnection]:
    """Open a connection; `accept` is the fingerprint of a host key that may be new, and is remembered then.

    Raises SshFailedError with `details["reason"]`: timeout, auth, host_key, refused, dns or command.
    """
    trust = known_hosts.Trust(target.host, target.port, target.host_key, (own_known_hosts, known_hosts.USERS))
    opened: list[socket.socket | paramiko.Transport] = []
    try:
        with trio.fail_after(seconds):
            connection, is_new = await trio.to_thread.run_sync(
                partial(_open, target, trust, accept, seconds, opened), limiter=CALLS, abandon_on_cancel=True
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
        connection.close()


def _open(
    target: Target, trust: known_hosts.Trust, accept: str | None, seconds: float, opened: list[Any]
) -> tuple[SshConnection, bool]:
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
    return SshConnection(transport, target, host_key), not is_known
