"""A server that answers with bytes a test has made up, right or wrong."""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec
import trio

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOBODY = "http://127.0.0.1:9"
Script = list[bytes]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Scripted:
    """A server that answers each connection with the next of its scripts, and hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.url = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            self.requests.append(await self.receive(stream))
            await stream.send_all(self.answers.pop(0) if self.answers else b"")
            await stream.aclose()

    async def receive(self, stream: trio.SocketStream) -> bytes:
        """Return one request, with its body."""
        received = b""
        while chunk := await stream.receive_some():
            received += chunk
            head, end, content = received.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if end and len(content) >= (int(length[1]) if length else 0):
                break
        return received

    async def run(self, nursery: trio.Nursery, host: str = "127.0.0.1", port: int = 0) -> None:
        (listener,) = await trio.open_tcp_listeners(port, host=host)
        nursery.start_soon(trio.serve_listeners, self.handle, [listener])
        self.url = f"http://{host}:{listener.socket.getsockname()[1]}"


def reply(content: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{extra}Connection: close\r\n\r\n".encode() + content


class Number(msgspec.Struct):
    number: int


async def answer_for_ever(stream: trio.SocketStream, beginning: bytes, part: bytes, pause: float) -> None:
    """Send the beginning of an answer, and then parts of it until nobody listens."""
    with suppress(trio.BrokenResourceError):
        await stream.receive_some()
        await stream.send_all(beginning)
        while True:
            await stream.send_all(part)
            await trio.sleep(pause)


async def serve_for_ever(nursery: trio.Nursery, beginning: bytes, part: bytes, pause: float) -> str:
    """Start a server whose answers begin so and go on without end; returns its URL."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, lambda stream: answer_for_ever(stream, beginning, part, pause), [listener])
    return f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
