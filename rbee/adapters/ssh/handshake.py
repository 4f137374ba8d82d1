"""Opens SSH connections: the host key is checked first, then a key of the user's is offered."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import paramiko
import trio

from rbee.adapters.ssh import auth, route
from rbee.adapters.ssh.connection import CALLS, SshConnection
from rbee.adapters.ssh.failure import failed, translated
from rbee.adapters.ssh.proxy_command import ProxyCommand
from rbee.adapters.ssh.transport import Transport
from rbee.adapters.ssh.trust import Trust, shown_key
from rbee.concurrency.opened import Opened
from rbee.errors import RbeeError, SshFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from rbee.adapters.ssh.target import SshServer, Target

CONNECT_SECONDS: Final = 10.0
KEEPALIVE_SECONDS: Final = 1
"""A question at this pace has to be acknowledged within DEAD_PEER_SECONDS, so that a partition is seen within 10 s."""


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, accept: str | None = None, seconds: float = CONNECT_SECONDS
) -> AsyncIterator[SshConnection]:
    """Open a connection; `accept` is the fingerprint of a host key that may be new, and is remembered then.

    Each machine on the way may take `seconds`. Raises SshFailedError with `details["reason"]`: timeout, auth, host_key,
    refused, dns or command.
    """
    servers = await _way(target, seconds)
    opened = Opened()
    reached: list[SshServer] = []
    limit = sum(
        (server.connect_seconds or seconds) * server.attempts + route.RETRY_SECONDS * (server.attempts - 1)
        for server in servers
    )
    try:
        with trio.fail_after(limit):
            opening = partial(_open, servers, own_known_hosts, accept, seconds, opened, reached)
            connection = await trio.to_thread.run_sync(opening, limiter=CALLS, abandon_on_cancel=True)
    except BaseException as exc:
        opened.close()
        if isinstance(exc, trio.TooSlowError):
            server = reached[-1] if reached else servers[-1]
            words = f"timeout, no answer within {server.connect_seconds or seconds:g} s"
            raise _with_notes(failed(server, "timeout", words), servers) from None
        if isinstance(exc, RbeeError):
            _with_notes(exc, servers)
        raise
    try:
        yield connection
    finally:
        opened.close()


async def _way(target: Target, seconds: float) -> list[SshServer]:
    """Return the machines on the way, as the settings say, which may lie on a disk that does not answer."""
    try:
        with trio.fail_after(seconds):
            return await trio.to_thread.run_sync(route.hops, target, limiter=CALLS, abandon_on_cancel=True)
    except trio.TooSlowError:
        raise SshFailedError(
            f"SSH to {target} failed: ssh's settings cannot be read, as the disk does not answer",
            hint="try `cat ~/.ssh/config`, and what it includes",
            reason="timeout",
        ) from None


def _with_notes(error: RbeeError, servers: list[SshServer]) -> RbeeError:
    """Have the error's hint say what of the settings was passed over: it may be the reason."""
    notes = dict.fromkeys(note for server in servers for note in server.notes)
    return _noted(error, notes)


def _noted(error: RbeeError, notes: Iterable[str]) -> RbeeError:
    error.hint = "; ".join([*filter(None, [error.hint]), *notes]) or None
    return error


def _log_in(transport: Transport, server: SshServer) -> None:
    try:
        auth.authenticate(transport, server)
    except SshFailedError as exc:
        raise _noted(exc, server.notes_of_keys) from exc.__cause__


def _open(
    servers: list[SshServer],
    own_known_hosts: Path,
    accept: str | None,
    seconds: float,
    opened: Opened,
    reached: list[SshServer],
) -> SshConnection:
    """Go from machine to machine; `reached` gets each at which this arrives, `opened` all that is to be closed."""
    transport: Transport | None = None
    host_key = ""
    for server in servers:
        reached.append(server)
        try:
            trust = Trust(server, own_known_hosts)
            limit = server.connect_seconds or seconds
            sock = route.dial(server, transport, limit, opened)
            transport = Transport(sock)
            opened.add(transport)
            host_key, is_known = _greet(transport, server, trust, accept, limit)
            _log_in(transport, server)
            transport.set_keepalive(KEEPALIVE_SECONDS)
            if not is_known:
                trust.remember(host_key)
        except RbeeError:
            raise
        except (OSError, UnicodeError, paramiko.SSHException, EOFError) as exc:
            raise _translated(server, exc, opened) from exc
    assert transport is not None
    return SshConnection(transport, servers[-1], host_key, is_proxied=len(servers) > 1 or servers[0].is_proxied)


def _greet(
    transport: Transport, server: SshServer, trust: Trust, accept: str | None, seconds: float
) -> tuple[str, bool]:
    """Exchange keys; return the server's, and whether it was known before. Raises SshFailedError."""
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = seconds
    transport.channel_timeout = seconds
    transport.choose(server, trust)
    transport.start_client(timeout=seconds)
    shown = shown_key(transport.get_remote_server_key())
    return shown.key, trust.check(shown, accept)


def _translated(server: SshServer, exc: Exception, opened: Opened) -> RbeeError:
    programs = [resource for resource in opened.resources if isinstance(resource, ProxyCommand)]
    if programs and server.proxy_command is not None:
        words = programs[-1].last_words() or "it says no more"
        error = failed(server, "refused", f"its ProxyCommand leads nowhere: {words}")
        error.hint = f"try `{server.proxy_command}`, which ~/.ssh/config names"
        return error
    return translated(server, exc)
