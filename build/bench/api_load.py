"""Asks for many streams at once and notes when their tokens come, with next to no work of its own.

A token is the time at which it was written (see `api_standin.py`), so that each tells how long it was on its way.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field

TOKEN = re.compile(rb'(?:"text"|"token"|"content"):"(\d{9,}) "')
LAST = b"data: [DONE]\n\n"


@dataclass
class Target:
    """Where streams are asked for, in whose words: `body` returns a request for a prompt."""

    name: str
    host: str
    port: int
    path: str
    key: str
    extra: dict[str, object] = field(default_factory=dict)
    is_chat: bool = True

    def request(self, prompt: str) -> bytes:
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.is_chat else {"prompt": prompt}
        content = json.dumps(asked | self.extra)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return (head + content).encode()


class Stream(asyncio.Protocol):
    """A connection, over which one stream after the other is asked for.

    `times` are those at which the tokens of the last one came, `delays` how long each was on its way, in seconds.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, target: Target, prompt: str) -> None:
        """Ask for a stream; returns when it has ended."""
        self._rest = b""
        self.times: list[float] = []
        self.delays: list[float] = []
        self._ended = asyncio.get_running_loop().create_future()
        self.asked = time.perf_counter()
        self._transport.write(target.request(prompt))
        await self._ended

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        now, now_ns = time.perf_counter(), time.monotonic_ns()
        data = self._rest + data
        end = 0
        for found in TOKEN.finditer(data):
            self.times.append(now)
            self.delays.append((now_ns - int(found[1])) / 1e9)
            end = found.end()
        self._rest = data[end:][-4096:]
        # The body's end, which comes last; a server may send it by itself.
        if (data.endswith(b"0\r\n\r\n") and LAST in data[-len(LAST) - 16 :]) or data.startswith(b"HTTP/1.1 4"):
            assert self.times, data.decode()
            self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError(f"the connection was closed: {exc or self._rest!r}"))


async def connect(target: Target) -> Stream:
    """Return a connection to a target."""
    _, stream = await asyncio.get_running_loop().create_connection(Stream, target.host, target.port)
    return stream


async def together(target: Target, streams: int, pace: float, count: int) -> list[Stream]:
    """Ask for so many streams, begun evenly within the time of one token or a second; returns them at their end."""
    connections = [await connect(target) for _ in range(streams)]
    spread = max(1 / pace, 1.0) if pace else 1.0

    async def one(number: int, stream: Stream) -> None:
        await asyncio.sleep(spread * number / streams)
        await stream.ask(target, f"{pace:g} {count}")

    await asyncio.gather(*(one(number, stream) for number, stream in enumerate(connections)))
    for stream in connections:
        stream.close()
    return connections
