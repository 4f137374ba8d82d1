"""Asks the kernel by sock_diag(7) whose socket listens at an address: /proc/net/tcp takes milliseconds to say it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import cache
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_REQUEST: Final = struct.Struct("=BBBBI")
"""inet_diag_req_v2 up to its inet_diag_sockid: family, protocol, extensions, padding, states."""
_PORTS: Final = struct.Struct("!HH")
_INTERFACE_AND_COOKIE: Final = struct.Struct("=III")
_SOCK_DIAG: Final = 4
_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NO_COOKIE: Final = 0xFFFFFFFF
_ALL_STATES: Final = 0xFFFFFFFF
_USER: Final = _HEADER.size + 4 + 48 + 12
"""Where inet_diag_msg has the user: behind four bytes, the inet_diag_sockid, and three numbers."""
_MAX_ANSWER: Final = 4096


def user_at(address: str, port: int) -> int | None:
    """Return the user whose socket takes a connection to an address and port; None where none does.

    Raises OSError where the kernel cannot be asked so.
    """
    if not _is_answered():
        raise OSError("no sock_diag for TCP")
    return _ask(address, port)


def _ask(address: str, port: int) -> int | None:
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    request = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
        + _PORTS.pack(port, 0)
        + packed.ljust(16, b"\0")
        + bytes(16)
        + _INTERFACE_AND_COOKIE.pack(0, _NO_COOKIE, _NO_COOKIE)
    )
    header = _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(_MAX_ANSWER)
    if len(answer) < _USER + 4 or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    return int(struct.unpack_from("=I", answer, _USER)[0])


@cache
def _is_answered() -> bool:
    """Whether the kernel finds a socket of ours: where it lacks what answers, it says that there is none."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as ours:
            return _ask("127.0.0.1", ours.getsockname()[1]) is not None
    except OSError:
        return False
