"""A stand-in for the keeper's peers: it plays queen and worker in one process, which keeper_program.py begins.

The environment variable PEER holds what should go wrong, as JSON; PEER_LOG names a file that gets each call.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import trio

from rbee import __version__
from rbee.adapters import config, tokens
from rbee.adapters.daemon.announce import Announcer, Ready
from rbee.adapters.daemon.instance import InstanceLock
from rbee.errors import AlreadyRunningError
from rbee.wire.common import Narration
from rbee.wire.error_body import from_body

PLAN = json.loads(os.environ.get("PEER", "{}"))
WORKER_ID = "6b8ff8ee-1a6c-4a2c-8a3c-0123456789ab"
NARRATION = {"actor": "queen-rbee", "action": "choose", "target": "local", "human": "Choosing a worker on local"}


class Peer:
    """Both daemons at one port."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.stopped = trio.Event()
        self.asked_ready = 0
        self.asked_inference = 0
        self.generating = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                head, body = await self.read(stream)
                if head:
                    method, path, _ = head.split("\r\n")[0].split(" ")
                    key = next(
                        (line.partition(" ")[2] for line in head.split("\r\n") if line.lower().startswith("auth")), None
                    )
                    self.record(method, path, body)
                    await self.answer(stream, method, path, key, body)

    @staticmethod
    async def read(stream: trio.SocketStream) -> tuple[str, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := await stream.receive_some(65536)):
                return "", b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode()
        length = next(
            (int(line.split(":")[1]) for line in text.split("\r\n") if line.lower().startswith("content-length")), 0
        )
        while len(body) < length:
            body += await stream.receive_some(65536)
        return text, body

    @staticmethod
    def record(method: str, path: str, body: bytes) -> None:
        if log := os.environ.get("PEER_LOG"):
            with Path(log).open("a") as file:
                file.write(json.dumps([method, path, json.loads(body or b"null")]) + "\n")

    async def answer(self, stream: trio.SocketStream, method: str, path: str, key: str | None, body: bytes) -> None:
        if path == "/health":
            versions = {name: PLAN[name] for name in ("version", "api_version") if name in PLAN}
            await reply(stream, 200, {"status": "ok", "version": __version__} | versions)
        elif path.startswith("/v2") and key != f"Bearer {self.token}":
            await reply(stream, 401, error("INVALID_API_KEY", "wrong key"))
        elif (method, path) == ("POST", "/v2/tasks"):
            await self.place(stream, json.loads(body))
        elif path.endswith("/failure") and "failure" in PLAN:
            await reply(stream, 200, error(*PLAN["failure"]))
        elif path == "/v2/workers/list":
            await reply(stream, 200, {"workers": PLAN.get("workers", [])})
        elif path == "/v2/models/list":
            await begin(stream)
            await event(stream, {"nodes": [{"node": "local", "models": PLAN.get("models", [])}]}, "result")
        elif path == "/v2/models/aliases":
            await reply(stream, 200, {"aliases": PLAN.get("aliases", [])})
        elif path.startswith("/v2/status"):
            memory = {"memory_total": 16_000_000_000, "memory_available": 5_100_000_000}
            workers = PLAN.get("workers", [])
            local = {"node": "local", "status": "alive", "version": __version__, "workers": len(workers)} | memory
            slots = {"slots_total": 4 * len(workers), "slots_available": 4 * len(workers)}
            await reply(stream, 200, {"nodes": [local | slots], "workers": workers})
        elif path == "/v1/health":
            await reply(stream, 200, {"status": "alive", "version": __version__, "worker_id": WORKER_ID})
        elif path == "/v1/ready":
            await self.ready(stream)
        elif path == "/v1/loading/progress":
            await self.progress(stream)
        elif (method, path) == ("POST", "/v1/inference"):
            await self.generate(stream, json.loads(body))
        elif method == "DELETE":
            if path.startswith("/v1"):
                self.stopped.set()
            await stream.send_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        else:
            await reply(stream, 404, error("ROUTE_NOT_FOUND", path))

    async def place(self, stream: trio.SocketStream, asked: dict[str, object]) -> None:
        await begin(stream)
        await event(stream, NARRATION | PLAN.get("narration", {}), "narration")
        for count in range(1, PLAN.get("pieces", 0) + 1):
            progress = {"bytes_downloaded": count * 1_000_000, "bytes_total": 9_000_000, "speed_mbps": 1.0}
            await event(stream, {"stage": "copying"} | progress, "progress")
            await trio.sleep(0.05)
        if "pieces" in PLAN:
            await event(stream, NARRATION | {"human": "Copied"}, "narration")
        if PLAN.get("place") == "hang":
            await trio.sleep_forever()
        if PLAN.get("place") == "cut":
            return
        if PLAN.get("leaves") == "before":
            os._exit(0)
        if (failure := PLAN.get("place")) is not None:
            await event(stream, error(*failure))
        else:
            where = {"node": "local", "worker_id": WORKER_ID, "worker_url": self.url, "state": "idle"}
            await event(stream, {"request_id": "", "api_key": "key"} | where | PLAN.get("handle", {}), "worker")
            if asked["relay"] or PLAN.get("handle", {}).get("relayed"):
                await self.run_request(stream, is_typed="conversation" in asked)
                return
        await stream.send_all(b"data: [DONE]\n\n")
        if PLAN.get("leaves") == "after":
            os._exit(0)

    async def ready(self, stream: trio.SocketStream) -> None:
        self.asked_ready += 1
        if "load_error" in PLAN:
            body = {"ready": False, "state": "failed", "error": error(*PLAN["load_error"])["error"]}
        elif self.asked_ready > PLAN.get("loading", 0):
            body = {"ready": True, "state": "idle", "model_loaded": True}
        else:
            body = {"ready": False, "state": "loading", "progress_url": f"{self.url}/v1/loading/progress"}
        await reply(stream, 200, body)

    async def progress(self, stream: trio.SocketStream) -> None:
        await begin(stream)
        for layer in range(1, PLAN.get("layers", 4) + 1):
            progress = {"layers_loaded": layer, "layers_total": 22, "vram_mb": layer * 30.5}
            await event(stream, {"stage": "loading_to_vram"} | progress)
            await trio.sleep(PLAN.get("layer_s", 0.05))
        if "stuck" in PLAN:
            await trio.sleep_forever()
        await event(stream, {"stage": "ready"})
        await stream.send_all(b"data: [DONE]\n\n")

    async def generate(self, stream: trio.SocketStream, asked: dict[str, int]) -> None:
        self.asked_inference += 1
        if (context := PLAN.get("context")) is not None and asked.get("max_tokens", 0) > context:
            details = {"field": "max_tokens", "context": context}
            await reply(stream, 400, {"error": {"code": "INVALID_REQUEST", "message": "too many", "details": details}})
            return
        if self.asked_inference <= PLAN.get("busy", 0):
            await reply(stream, 503, error("ALL_SLOTS_BUSY", "all slots are busy"))
            return
        if PLAN.get("refuse") is not None:
            await reply(stream, 401, error(*PLAN["refuse"]))
            return
        if (failures := PLAN.get("failures")) and self.asked_inference <= len(failures):
            status, code, message, details = failures[self.asked_inference - 1]
            await reply(stream, status, error(code, message, **details))
            return
        await self.run_request(stream, is_typed="conversation" in asked)

    async def run_request(self, stream: trio.SocketStream, *, is_typed: bool = False) -> None:
        self.generating += 1
        try:
            await (self.send_answer(stream) if is_typed else self.send_tokens(stream))
        finally:
            self.generating -= 1

    async def send_answer(self, stream: trio.SocketStream) -> None:
        """Answer a conversation: each of the answers of the plan in turn, the last one again and again."""
        self.stopped = trio.Event()
        await begin(stream)
        answers = PLAN.get("answers", [["Once", " upon", " a time"]])
        pieces = answers[min(self.asked_inference, len(answers)) - 1]
        thoughts = PLAN.get("thoughts", [])
        await event(stream, {"type": "prompt", "tokens": 12})
        for index, piece in enumerate([*thoughts, *pieces]):
            if index == PLAN.get("cut_after"):
                return
            if index == PLAN.get("hang_after") and self.asked_inference == 1:
                await self.stopped.wait()
                return
            await event(stream, {"type": "reasoning" if index < len(thoughts) else "text", "text": piece})
            await trio.sleep(PLAN.get("token_s", 0))
        await event(stream, {"type": "choice_ended", "reason": PLAN.get("reason", "stop")})
        usage = {"prompt_tokens": 12, "completion_tokens": len(pieces)} | PLAN.get("usage", {})
        times = {"duration_ms": 60.0, "prompt_ms": 100.0, "first_token_ms": 130.0, "text_ms": 50.0}
        await event(stream, {"type": "answer_ended", "usage": usage} | times | PLAN.get("ended", {}))
        await stream.send_all(b"data: [DONE]\n\n")

    async def drain(self) -> None:
        """Let running requests end, as the real one does."""
        while self.generating:  # noqa: ASYNC110 (a stand-in may look)
            await trio.sleep(0.05)

    async def send_tokens(self, stream: trio.SocketStream) -> None:
        await begin(stream)
        pieces = PLAN.get("tokens", ["Once", " upon", " a", " time", ", the bée", "\nsang."])
        for index, piece in enumerate(pieces):
            if index == PLAN.get("cut_after"):
                return
            if index == PLAN.get("drain_after"):
                await event(stream, error("SHUTTING_DOWN", "the worker is shutting down"))
                await stream.send_all(b"data: [DONE]\n\n")
                return
            if index == PLAN.get("hang_after"):
                await self.stopped.wait()
                return
            await event(stream, {"token": piece, "index": index})
            await trio.sleep(PLAN.get("token_s", 0))
        told = f"Generated {len(pieces)} tokens in 12 ms"
        await event(
            stream, NARRATION | {"actor": "llm-worker-rbee", "action": "inference_end", "human": told}, "narration"
        )
        done = {"done": True, "total_tokens": len(pieces), "duration_ms": 12.5, "stop_reason": "eos"}
        await event(stream, done | PLAN.get("done", {}))
        await stream.send_all(b"data: [DONE]\n\n")


def error(code: str, message: str, **details: object) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "details": details}}


async def reply(stream: trio.SocketStream, status: int, body: object) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close"
    await stream.send_all(head.encode() + b"\r\n\r\n" + data)


async def begin(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")


async def event(stream: trio.SocketStream, message: object, name: str | None = None) -> None:
    named = f"event: {name}\n" if name else ""
    await stream.send_all(f"{named}data: {json.dumps(message)}\n\n".encode())


async def queen(arguments: list[str]) -> None:
    announcer = Announcer("--announce" in arguments)
    ephemeral = "--ephemeral" in arguments
    settings = config.load()
    if PLAN.get("start") == "die":
        sys.stderr.write("the stand-in dies as it was told\n")
        sys.exit(3)
    if PLAN.get("start") == "hang":
        await until_asked(ephemeral)
        return
    if (failure := PLAN.get("start")) is not None:
        announcer.failed(from_body(error(*failure)))
        sys.exit(1)
    try:
        lock = InstanceLock(settings.state_dir, "queen")
    except AlreadyRunningError as exc:
        announcer.failed(exc)
        sys.exit(1)
    with lock:
        token = tokens.load_or_create(settings.token_file)
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(settings.queen.port, host="127.0.0.1")
            url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            peer = Peer(url, token)
            nursery.start_soon(trio.serve_listeners, peer.handle, listeners)
            announcer.report(
                Narration(actor="queen-rbee", action="start_queen", target="queen", human=f"Listening on {url}")
            )
            lock.publish(url, __version__, ephemeral=ephemeral)
            announcer.ready(Ready(url, os.getpid(), __version__))
            await until_asked(ephemeral)
            with trio.move_on_after(PLAN.get("drain_s", 10)):
                await peer.drain()
            if (seconds := PLAN.get("end_s")) is not None:
                with trio.move_on_after(seconds):
                    await until_asked(ephemeral=False, waits_for="a second request to end")
            nursery.cancel_scope.cancel()
        lock.ended_cleanly = True


async def until_asked(ephemeral: bool, waits_for: str | None = None) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        if waits_for is not None:
            Peer.record("WAIT", waits_for, b"")
        async with trio.open_nursery() as nursery:

            async def parent() -> None:
                await trio.lowlevel.wait_readable(0)
                nursery.cancel_scope.cancel()

            if ephemeral:
                nursery.start_soon(parent)
            async for _ in signals:
                nursery.cancel_scope.cancel()


def play(arguments: list[str]) -> None:
    """Play them until told to end; `arguments` are the queen's."""
    trio.run(queen, arguments)
