"""The way to a server: directly, through other machines, or through a program (ssh_config(5), ProxyJump)."""

from __future__ import annotations

import dataclasses
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rbee.adapters.ssh.failure import failed
from rbee.adapters.ssh.proxy_command import ProxyCommand
from rbee.adapters.ssh.settings import ssh_config
from rbee.adapters.ssh.target import Target
from rbee.wire import ssh_address

if TYPE_CHECKING:
    import paramiko

    from rbee.adapters.ssh.target import SshServer
    from rbee.concurrency.opened import Opened

DEAD_PEER_SECONDS: Final = 5
MAX_HOPS: Final = 16
RETRY_SECONDS: Final = 1.0
_FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def hops(target: Target) -> list[SshServer]:
    """Return the machines on the way, the target last. Blocks; raises SshFailedError."""
    return _hops(ssh_config.lookup(target), [])


def _hops(server: SshServer, after: list[SshServer]) -> list[SshServer]:
    """Return the machines that lead to `server`, which leads to those in `after`."""
    if len(after) >= MAX_HOPS:
        raise _loop(server)
    *further, last = server.proxy_jump or ("",)
    if not last:
        return [server]
    # The last one is next to the server, and is reached through those before it, whatever its own settings say; those
    # of the first one count (ssh.c: `ssh -J first,second host` is `ssh -W host -J first second`).
    chain = [server, *after]
    found = _named(server, last)
    if further:
        found = dataclasses.replace(found, proxy_jump=tuple(further), proxy_command=None)
    return [*_hops(found, chain), server]


def _named(server: SshServer, text: str) -> SshServer:
    try:
        address = ssh_address.parse(text)
    except ValueError as exc:
        raise failed(server, "dns", f"ProxyJump {text} {exc}") from exc
    return ssh_config.lookup(Target(address.host, address.port, address.user))


def _loop(server: SshServer) -> Exception:
    error = failed(server, "refused", f"the ProxyJump of {server.name} leads in a circle")
    error.hint = f"`ProxyJump none` below `Host {server.name}`, above the line that holds for all, in ~/.ssh/config"
    return error


def dial(server: SshServer, before: paramiko.Transport | None, seconds: float, opened: Opened) -> Any:
    """Open the connection to the server's port: through the machine `before`, if any. `opened` gets what to close."""
    if before is not None:
        address, here = (server.host, server.port), ("127.0.0.1", 0)
        return before.open_channel("direct-tcpip", address, here, timeout=seconds)
    if server.proxy_command is not None:
        program = ProxyCommand(server.proxy_command)
        opened.add(program)
        return program.sock
    sock = _connected(server, seconds)
    opened.add(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000)
    return sock


def _connected(server: SshServer, seconds: float) -> socket.socket:
    """Connect, as often as ConnectionAttempts says, one second apart (sshconnect.c, ssh_connect_direct)."""
    for _ in range(server.attempts - 1):
        with suppress(OSError):
            return _connect(server, seconds)
        time.sleep(RETRY_SECONDS)
    return _connect(server, seconds)


def _connect(server: SshServer, seconds: float) -> socket.socket:
    source = None if server.bind_address is None else (server.bind_address, 0)
    address = (server.host, server.port)
    if (family := _FAMILIES.get(server.family)) is None:
        return socket.create_connection(address, timeout=seconds, source_address=source)
    last: OSError | None = None
    for *_, found in socket.getaddrinfo(*address, family, socket.SOCK_STREAM):
        try:
            return socket.create_connection((str(found[0]), found[1]), timeout=seconds, source_address=source)
        except OSError as exc:
            last = exc
    raise last or socket.gaierror
