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
from rbee.adapters.ssh.trust import Trust, shown_key
from rbee.concurrency.opened import Opened
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rbee.adapters.ssh.target import SshServer, Target

CONNECT_SECONDS: Final = 10.0
KEEPALIVE_SECONDS: Final = 1
"""A question at this pace has to be acknowledged within DEAD_PEER_SECONDS, so that a partition is seen within 10 s."""


class _Transport(paramiko.Transport):
    """paramiko's, with exactly the host key algorithms that were chosen: it would add those of certificates itself."""

    chosen_keys: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self.chosen_keys


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, accept: str | None = None, seconds: float = CONNECT_SECONDS
) -> AsyncIterator[SshConnection]:
    """Open a connection; `accept` is the fingerprint of a host key that may be new, and is remembered then.

    Each machine on the way may take `seconds`. Raises SshFailedError with `details["reason"]`: timeout, auth, host_key,
    refused, dns or command.
    """
    servers = await trio.to_thread.run_sync(route.hops, target, limiter=CALLS)
    opened = Opened()
    reached: list[SshServer] = []
    try:
        with trio.fail_after(seconds * len(servers)):
            opening = partial(_open, servers, own_known_hosts, accept, seconds, opened, reached)
            connection = await trio.to_thread.run_sync(opening, limiter=CALLS, abandon_on_cancel=True)
    except BaseException as exc:
        opened.close()
        if isinstance(exc, trio.TooSlowError):
            late = failed(
                reached[-1] if reached else servers[-1], "timeout", f"timeout, no answer within {seconds:g} s"
            )
            raise _with_notes(late, servers) from None
        if isinstance(exc, RbeeError):
            _with_notes(exc, servers)
        raise
    try:
        yield connection
    finally:
        opened.close()


def _with_notes(error: RbeeError, servers: list[SshServer]) -> RbeeError:
    """Have the error's hint say what of the settings was passed over: it may be the reason."""
    notes = dict.fromkeys(note for server in servers for note in server.notes)
    error.hint = "; ".join([*filter(None, [error.hint]), *notes]) or None
    return error


def _open(
    servers: list[SshServer],
    own_known_hosts: Path,
    accept: str | None,
    seconds: float,
    opened: Opened,
    reached: list[SshServer],
) -> SshConnection:
    """Go from machine to machine; `reached` gets each at which this arrives, `opened` all that is to be closed."""
    transport: _Transport | None = None
    host_key = ""
    for server in servers:
        reached.append(server)
        try:
            trust = Trust(server, own_known_hosts)
            sock = route.dial(server, transport, seconds, opened)
            transport = _Transport(sock)
            opened.add(transport)
            host_key, is_known = _greet(transport, trust, accept, seconds)
            auth.authenticate(transport, server)
            transport.set_keepalive(KEEPALIVE_SECONDS)
            if not is_known:
                trust.remember(host_key)
        except RbeeError:
            raise
        except (OSError, UnicodeError, paramiko.SSHException, EOFError) as exc:
            raise _translated(server, exc, opened) from exc
    assert transport is not None
    return SshConnection(transport, servers[-1], host_key, is_proxied=len(servers) > 1 or servers[0].is_proxied)


def _greet(transport: _Transport, trust: Trust, accept: str | None, seconds: float) -> tuple[str, bool]:
    """Exchange keys; return the server's, and whether it was known before. Raises HostKeyError."""
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = seconds
    transport.channel_timeout = seconds
    security = transport.get_security_options()
    transport.chosen_keys = tuple(trust.algorithms(security.key_types))
    # Half the processor time of the counter modes with a separate hash.
    security.ciphers = sorted(security.ciphers, key=lambda name: "gcm" not in name)
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
