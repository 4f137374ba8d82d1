"""Asks the kernel by sock_diag(7) whose a TCP socket is: /proc/net/tcp takes milliseconds to say it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import cache
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("=IHHII")
"""`struct nlmsghdr` (linux/netlink.h): length, type, flags, sequence, port."""
_QUESTION: Final = struct.Struct("=BBBxI")
"""`struct inet_diag_req_v2` (linux/inet_diag.h) up to its socket id: family, protocol, extensions, states."""
_ID: Final = struct.Struct("!HH16s16s")
"""`struct inet_diag_sockid` up to its interface: both ports, both addresses, in network order; the rest follows."""
_INTERFACE_AND_COOKIE: Final = struct.Struct("=III")
_ANSWER: Final = struct.Struct("=4x48x12xII")
"""`struct inet_diag_msg`: after states, socket id and queues, the user and the inode."""
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NO_COOKIE: Final = 0xFFFFFFFF
_ALL_STATES: Final = 0xFFFFFFFF
_MAX_ANSWER: Final = 4096
_ANSWER_SECONDS: Final = 0.05
"""The kernel answers within the call that asks; a sandbox that swallows the question must hold nobody up."""


class FoundSocket(NamedTuple):
    """A socket of this machine, as the kernel knows it."""

    user: int
    inode: int
    """0 where no process has it any more; the user is root then."""


def find(own: tuple[str, int], other: tuple[str, int] | None = None) -> FoundSocket | None:
    """Return the socket that has one address and port, and is connected to the other; without that one, who listens.

    None where there is none, or the kernel was built without this question: see `is_answered`. Addresses have no names,
    and both are of one family. Raises OSError where the kernel cannot be asked.
    """
    (host, port), (other_host, other_port) = own, other or ("", 0)
    packed = ipaddress.ip_address(host).packed
    other_packed = ipaddress.ip_address(other_host).packed if other_host else b""
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    question = (
        _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
        + _ID.pack(port, other_port, packed, other_packed)
        + _INTERFACE_AND_COOKIE.pack(0, _NO_COOKIE, _NO_COOKIE)
    )
    header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
        kernel.sendto(header + question, (0, 0))
        answer = kernel.recv(_MAX_ANSWER)
    if len(answer) < _HEADER.size + _ANSWER.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    return FoundSocket(*_ANSWER.unpack_from(answer, _HEADER.size))


def user_at(address: str, port: int) -> int | None:
    """Return the user whose socket takes a connection to an address and port; None where none does.

    Raises OSError where the kernel cannot be asked so.
    """
    if not is_answered():
        raise OSError("no sock_diag for TCP")
    found = find((address, port))
    return None if found is None else found.user


@cache
def is_answered() -> bool:
    """Whether the kernel finds a socket of ours: where it lacks what answers, it says that there is none."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as ours:
            return find(("127.0.0.1", ours.getsockname()[1])) is not None
    except OSError:
        return False
