"""Stands in for a proxy between a user and the internet: HTTP, or SOCKS version 5; real sockets, in threads."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

PEACE: Literal[0] = 0
"""The reply of SOCKS to a request that is granted (RFC 1928, section 6)."""


class ForwardProxy:
    """Connects clients with whatever they ask for, and notes what that was; `silent` says nothing at all."""

    def __init__(self, kind: Literal["http", "socks", "silent"], *, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self._refuses = refuses
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        serve: dict[str, Callable[[socket.socket], None]] = {
            "http": self._serve_http,
            "socks": self._serve_socks,
            "silent": lambda _: None,
        }
        self._serve = serve[kind]
        self._thread = threading.Thread(target=self._accept)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threads.append(threading.Thread(target=self._contained, args=(client,)))
                threads[-1].start()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    def _contained(self, client: socket.socket) -> None:
        with suppress(OSError, IndexError, ValueError):
            self._serve(client)

    def _serve_http(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(4096)):
                return
            head += data
        _, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.asked.append(target)
        if self._refuses:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            return
        host, _, port = target.removeprefix("http://").partition("/")[0].rpartition(":")
        self._connect(client, host, int(port), head)

    def _serve_socks(self, client: socket.socket) -> None:
        _, methods = client.recv(2)
        client.recv(methods)
        client.sendall(b"\5\0")
        kind = client.recv(4)[3]
        host = socket.inet_ntoa(client.recv(4)) if kind == 1 else client.recv(client.recv(1)[0]).decode()
        (port,) = struct.unpack(">H", client.recv(2))
        self.asked.append(f"{host}:{port}")
        client.sendall(bytes((5, 5 if self._refuses else PEACE, 0, 1, 0, 0, 0, 0, 0, 0)))
        if not self._refuses:
            self._connect(client, host, port, b"")

    def _connect(self, client: socket.socket, host: str, port: int, first: bytes) -> None:
        server = socket.create_connection((host, port))
        self._open.append(server)
        server.sendall(first)
        back = threading.Thread(target=_pass_on, args=(server, client))
        back.start()
        _pass_on(client, server)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
