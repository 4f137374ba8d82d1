"""The ways in which a client leaves, with or without saying so."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final, Literal

import pytest

Way = Literal["closed", "reset", "half-closed", "stops reading", "vanishes"]
WAYS: Final[tuple[Way, ...]] = ("closed", "reset", "half-closed", "stops reading", "vanishes")
AT_ONCE: Final = frozenset(("closed", "reset", "half-closed"))
"""The ways that the server's kernel notices."""

_SO_ATTACH_FILTER: Final = 26
_RETURN: Final = 0x06


def connect(port: int, *, buffer: int = 1) -> socket.socket:
    """Connect with a receive buffer of about so many bytes; the kernel's least is 2304."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    return client


def leave(client: socket.socket, way: Way) -> None:
    """Leave the connection; where the other end is not to hear of it, `client` has to be kept open."""
    match way:
        case "closed":
            client.close()
        case "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        case "half-closed":
            client.shutdown(socket.SHUT_WR)
        case "stops reading":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        case "vanishes":
            _vanish(client)


def _vanish(client: socket.socket) -> None:
    """Have the kernel drop every packet that comes for this connection, before TCP sees it.

    So nothing is acknowledged, refused or answered any more, as when the cable is cut or the power fails. It takes
    neither root nor a network namespace: a socket filter (socket(7), SO_ATTACH_FILTER) that keeps 0 bytes. Where the
    kernel has no room for compiled filters of users who are not root (net.core.bpf_jit_limit), the test is skipped.
    """
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    try:
        client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop)))
    except PermissionError:
        pytest.skip("the kernel lets this user filter no sockets")
