"""Plays a hive and its one worker, which writes at the pace that its prompt names; it speaks OpenAI's API too.

python3 build/bench/api_standin.py VERSION SWARM ADDRESS      prints `ready`, runs until it is ended

A prompt is `PACE COUNT`: so many tokens a second, all at once where that is 0, and so many tokens. Each token is the
time at which it was written, in nanoseconds of the machine's monotonic clock. The hive's and the worker's own words are
those of `nodes_standin`; a plain server of asyncio has next to no work with a token.
"""

import asyncio
import json
import sys
import time

import nodes_standin

SLOTS = 256
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "cached_tokens": 0, "reasoning_tokens": 0}
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bee"}


def event(data: object) -> bytes:
    """Return an event of a stream, in a chunk of the body."""
    line = b"data: " + (data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


class Typed:
    """The events of rbee's own answers."""

    first = event({"type": "prompt", "tokens": 3, "cached": 0})
    last = event({"type": "choice_ended", "reason": "length"}) + event(
        {"type": "answer_ended", "usage": USAGE, "duration_ms": 1.0}
    )

    @staticmethod
    def token(text: str) -> bytes:
        return event(b'{"type":"text","text":"%b"}' % text.encode())


class OpenAI:
    """The chunks of OpenAI's chat completions."""

    first = event(CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    last = event(CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})

    @staticmethod
    def token(text: str) -> bytes:
        return event(CHUNK | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


class Connection(asyncio.Protocol):
    """One connection, with one request after the other."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self._bodies = bodies
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._received = rest[length:]
        method, path, _ = lines[0].split(" ")
        if method == "GET":
            self._look(path)
        elif path.endswith(("/inference", "/completions")):
            asked = json.loads(rest[:length])
            self._write_tokens(prompt_of(asked), Typed if "inference" in path else OpenAI)
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def _look(self, path: str) -> None:
        if path == "/v1/events":
            line = b"event: state\ndata: " + self._bodies["/v1/workers/list"] + b"\n\n"
            self._transport.write(HEAD + b"%x\r\n%b\r\n" % (len(line), line))
            self._keep_alive()
            return
        body = self._bodies.get(path, b'{"models":[]}')
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def _keep_alive(self) -> None:
        self._transport.write(b"d\r\n: still here\n\r\n")
        self._timer = asyncio.get_running_loop().call_later(5, self._keep_alive)

    def _write_tokens(self, prompt: str, dialect: type[Typed] | type[OpenAI]) -> None:
        pace, count = (float(word) for word in prompt.split()[:2])
        last = dialect.last + event(b"[DONE]") + END
        write = self._transport.write
        if pace == 0:
            tokens = b"".join(dialect.token(f"{time.monotonic_ns()} ") for _ in range(int(count)))
            write(HEAD + dialect.first + tokens + last)
            return
        loop = asyncio.get_running_loop()
        begun, left = loop.time(), int(count)

        def step(number: int) -> None:
            token = dialect.token(f"{time.monotonic_ns()} ")
            if number + 1 == left:
                write(token + last)
                return
            write(HEAD + dialect.first + token if number == 0 else token)
            self._timer = loop.call_at(begun + (number + 1) / pace, step, number + 1)

        step(0)


def prompt_of(asked: dict[str, object]) -> str:
    """Return the prompt of a request, which in a conversation is the last message."""
    messages = asked.get("messages") or (asked.get("conversation") or {}).get("messages")
    if not messages:
        return asked["prompt"]
    content = messages[-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


async def main() -> None:
    version, swarm, address = sys.argv[1:]
    nodes_standin.WORKER |= {"slots_total": SLOTS, "slots_available": SLOTS}
    bodies = nodes_standin.answers(version, swarm, address)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(bodies), address, nodes_standin.PORT, backlog=SLOTS
    )
    print("ready", flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
