"""Asks servers for text as streams, and notes when each piece comes, with next to no work of its own meanwhile.

What asks shares the processors with what is measured: pieces are only looked for as they come, and decoded at the end.
"""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

PIECE = re.compile(rb'"(?:text|content)":\s*"[^"]')
"""What each piece of text has and nothing else, whether llama-server, the queen or a worker sends it."""
SECONDS = 600
Body = dict[str, Any]
Message = dict[str, str]


class Way(NamedTuple):
    """Where text is asked for: a llama-server, the queen, or with `is_worker` the worker itself."""

    name: str
    port: int
    key: str = "none"
    model: str = ""
    is_worker: bool = False

    def text(self, prompt: str, most: int, **further: object) -> Body:
        """Return the request for what follows a text, greedily."""
        if self.is_worker:
            return {"prompt": prompt, "raw": True, "typed": True, "max_tokens": most, "temperature": 0} | further
        return self._openai(most) | {"prompt": prompt} | further

    def chat(self, messages: Sequence[Message], most: int, **further: object) -> Body:
        """Return the request for the next message of a conversation."""
        if self.is_worker:
            parts = [{"role": one["role"], "content": [_part(one["content"])]} for one in messages]
            return {"conversation": {"messages": parts}, "max_tokens": most, "temperature": 0} | further
        return self._openai(most) | {"messages": messages} | further

    def _openai(self, most: int) -> Body:
        options = {"include_usage": True}
        fields = {"max_tokens": most, "temperature": 0, "stream": True, "stream_options": options}
        return {"model": self.model} | fields

    def request(self, body: Body) -> bytes:
        path = "/v1/inference" if self.is_worker else f"/v1/{'chat/' if 'messages' in body else ''}completions"
        content = json.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return (head + content).encode()


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class Answer(asyncio.Protocol):
    """One request over a connection of its own; `times` are those at which its pieces came."""

    def __init__(self) -> None:
        self.asked = self.ended = 0.0
        self.times: list[float] = []
        self._data: list[bytes] = []
        self._rest = b""
        self._is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._grown = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes) -> None:
        self.asked = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._data.append(data)
        lines, _, self._rest = (self._rest + data).rpartition(b"\n")
        self.times += [now] * sum(1 for _ in PIECE.finditer(lines))
        self._grown.set()
        if b"data: [DONE]" in lines or (self._data[0].startswith(b"HTTP/1.1 ") and self._data[0][9:10] in b"45"):
            self._end()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._is_over.done():
            self.ended = time.perf_counter()
            self._is_over.set_result(None)
            self._grown.set()
        self._transport.close()

    def cancel(self) -> None:
        """Leave: the server ends what it does for this request."""
        self._end()

    @property
    def is_over(self) -> bool:
        return self._is_over.done()

    async def until(self, pieces: int) -> None:
        """Return once so many pieces have come, or the answer is over."""
        while len(self.times) < pieces and not self.is_over:
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), SECONDS)

    async def end(self) -> None:
        """Return once the answer is over, and hold that it came."""
        await asyncio.wait_for(self._is_over, SECONDS)
        head = b"".join(self._data)[:3000]
        assert head.startswith(b"HTTP/1.1 200"), head.decode(errors="replace")
        assert self.usage, head.decode(errors="replace")

    @property
    def first(self) -> float:
        """Seconds to the first piece, or to the end where the first token ended the text."""
        return (self.times[0] if self.times else self.ended) - self.asked

    @property
    def last(self) -> float:
        """When the last piece came, or the end of an answer without text."""
        return self.times[-1] if self.times else self.ended

    @property
    def rate(self) -> float:
        """Tokens a second between the first and the last; 0 where there are no two."""
        if len(self.times) < 2:
            return 0.0
        return (self.tokens - 1) / (self.times[-1] - self.times[0])

    def _objects(self) -> list[dict[str, Any]]:
        lines = b"".join(self._data).splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]

    @property
    def usage(self) -> dict[str, Any]:
        return next((found["usage"] for found in reversed(self._objects()) if found.get("usage")), {})

    @property
    def tokens(self) -> int:
        """How many tokens were written."""
        return int(self.usage["completion_tokens"])

    @property
    def text(self) -> str:
        """All that was written."""
        choices = [choice for one in self._objects() for choice in one.get("choices") or [one]]
        return "".join(one.get("text") or (one.get("delta") or {}).get("content") or "" for one in choices)


async def begin(way: Way, body: Body) -> Answer:
    """Send a request; returns at once."""
    answer = await _connect(way)
    answer.send(way.request(body))
    return answer


async def ask(way: Way, body: Body) -> Answer:
    """Send a request; returns once it is answered."""
    answer = await begin(way, body)
    await answer.end()
    return answer


async def together(way: Way, bodies: Sequence[Body]) -> list[Answer]:
    """Send requests at the same moment; returns once all are answered."""
    answers = [await _connect(way) for _ in bodies]
    for answer, body in zip(answers, bodies, strict=True):
        answer.send(way.request(body))
    for answer in answers:
        await answer.end()
    return answers


async def _connect(way: Way) -> Answer:
    _, answer = await asyncio.get_running_loop().create_connection(Answer, "127.0.0.1", way.port)
    return answer
