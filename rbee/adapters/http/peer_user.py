"""Finds out which user of this machine holds the other end of a connection, by asking the kernel for its socket."""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from rbee.adapters.daemon import sock_diag
from rbee.wire import addresses

_TABLES: Final = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
_LOCAL, _REMOTE, _USER, _INODE = 1, 2, 7, 9
"""The fields of a line of these tables (Documentation/networking/proc_net_tcp.rst)."""
_OVERFLOW: Final = Path("/proc/sys/kernel/overflowuid")
_OVERFLOW_USER: Final = 65534


class Connection(Protocol):
    """A connected socket, of the standard library or of trio."""

    def getpeername(self) -> Any: ...

    def getsockname(self) -> Any: ...


class Endpoints(NamedTuple):
    """The two ends of a TCP connection, as the end that is looked for sees them: its own address and port first."""

    family: int
    own: tuple[str, int]
    other: tuple[str, int]


def of_peer(connection: Connection) -> int | None:
    """Return the user of this machine that holds the other end of a TCP connection.

    None where that is on another machine or in another network namespace, as of a container, or is closed already: of
    a socket that no process has any more the kernel names root. About 40 us.
    """
    try:
        found = _endpoints(connection)
    except OSError:
        return None  # the client has gone
    # Only what goes over the loopback device has both its ends here.
    if found.own[0] != found.other[0] and not addresses.is_loopback(found.own[0]):
        return None
    user = find(found)
    # Who is not known in our user namespace has this number, whoever it is (user_namespaces(7)).
    return None if user == _overflow_user() else user


def _endpoints(connection: Connection) -> Endpoints:
    theirs, ours = connection.getpeername(), connection.getsockname()
    own, other = addresses.plain(str(theirs[0])), addresses.plain(str(ours[0]))
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    return Endpoints(family, (own, int(theirs[1])), (other, int(ours[1])))


def find(ends: Endpoints) -> int | None:
    """Return the user that has this end of a connection; None where this machine has no such socket."""
    try:
        if (found := sock_diag.find(ends.own, ends.other)) is None and sock_diag.find(ends.other, ends.own) is None:
            return search_tables(ends)  # the kernel does not know our own end either
    except OSError:
        return search_tables(ends)  # a sandbox without netlink
    return found.user if found is not None and found.inode else None


def search_tables(ends: Endpoints) -> int | None:
    """Find the socket in the tables of /proc; the kernel goes through all its sockets for that, which takes 10 ms."""
    for family, table in _TABLES.items():
        wanted = [_as_in_table(family, ends.family, *end) for end in (ends.own, ends.other)]
        if None in wanted:
            continue
        with suppress(OSError, ValueError, IndexError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[_LOCAL] == wanted[0] and fields[_REMOTE] == wanted[1]:
                    return int(fields[_USER]) if fields[_INODE] != "0" else None
    return None


def _as_in_table(table: int, family: int, host: str, port: int) -> str | None:
    """Return how a table writes an address: words of 32 bits in the processor's order. None where it has none."""
    packed = ipaddress.ip_address(host).packed
    if table == socket.AF_INET6 and family == socket.AF_INET:
        packed = bytes(10) + b"\xff\xff" + packed
    elif table != family:
        return None
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


@cache
def _overflow_user() -> int:
    try:
        return int(_OVERFLOW.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _OVERFLOW_USER
