"""A real worker process, and a socket that stands in for its hive."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import trio

from rbee.adapters.daemon import announce
from rbee.adapters.http import client as http_client
from rbee.wire.hive import ReadyCallback
from rbee.wire.worker import Readiness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from rbee.wire.common import Narration

ROOT = Path(__file__).resolve().parents[2]
KEY = "rbee_w_test"
MODEL_REF = "file:/test.gguf"


class Callback(NamedTuple):
    """What the hive got: the request's head, and the body decoded."""

    head: str
    body: ReadyCallback


class FakeHive:
    """Answers every request with `status`, and remembers the callbacks."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.callbacks: list[Callback] = []
        self.url = ""

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        data = b""
        while True:
            head, found, body = data.partition(b"\r\n\r\n")
            if found:
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                if len(body) >= length:
                    break
            if not (more := await stream.receive_some(65536)):
                return
            data += more
        self.callbacks.append(Callback(head.decode(), msgspec.json.decode(body, type=ReadyCallback)))
        answer = b'{"acknowledged":true}'
        if self.status != 200:
            answer = b'{"error":{"code":"WORKER_NOT_FOUND","message":"there is no such worker"}}'
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
        await stream.send_all(head + answer)


class Worker(NamedTuple):
    """A worker that has called back."""

    id: str
    url: str
    process: trio.Process
    client: httpx.AsyncClient
    hive: FakeHive
    narration: list[Narration]
    log: Path

    async def wait_loaded(self) -> Readiness:
        with trio.fail_after(30):
            while (state := await self.ready()).state == "loading":  # noqa: ASYNC110 (another process's state)
                await trio.sleep(0.01)
        return state

    async def ready(self) -> Readiness:
        return await http_client.call(self.client, "GET", "/v1/ready", Readiness)

    async def wait_state(self, *states: str, seconds: float = 10) -> None:
        with trio.fail_after(seconds):
            while (await self.ready()).state not in states:  # noqa: ASYNC110 (another process's state)
                await trio.sleep(0.005)

    async def infer(self, prompt: str, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/inference", json=request(prompt, **fields), timeout=60)

    async def text(self, prompt: str, **fields: Any) -> str:
        response = await self.infer(prompt, stream=False, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["text"])

    def resident_mb(self) -> float:
        line = next(
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        return int(line.split()[1]) / 1024


def request(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 20, "temperature": 0, **fields}


def events(text: str) -> list[Any]:
    """Decode the data of a stream's plain events, except the last one, which must be there."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]", blocks[-1]
    assert all("id:" not in line[:3] for block in blocks for line in block.splitlines())
    plain = [block for block in blocks[:-1] if not block.startswith("event:")]
    return [msgspec.json.decode(block.removeprefix("data: ")) for block in plain]


def arguments(worker_id: str, model: Path, hive_url: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "rbee", "worker", "--id", worker_id, "--model-ref", MODEL_REF),
        *("--model-path", str(model), "--backend", "cpu", "--device", "0", "--hive-url", hive_url),
        *options,
    ]


async def start_process(command: list[str], log: Path, *, env: dict[str, str] | None = None) -> trio.Process:
    """Start a worker as its hive does, the key on its stdin."""
    with log.open("ab") as errors:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={
                **os.environ,
                "RBEE_HOME": str(log.parent),
                "RBEE_CACHE_DIR": str(log.parent / "prefixes"),
                **(env or {}),
            },
        )
    assert process.stdin is not None
    await process.stdin.send_all(msgspec.json.encode({"key": KEY}) + b"\n")
    await process.stdin.aclose()
    return process


@asynccontextmanager
async def running(
    model: Path,
    folder: Path,
    *options: str,
    slots: int = 4,
    loaded: bool = True,
    env: dict[str, str] | None = None,
) -> AsyncIterator[Worker]:
    """Run a worker for the block; it is killed afterwards if it still runs."""
    worker_id = str(uuid.uuid4())
    hive = FakeHive(200)
    log = folder / f"worker-{worker_id}.log"
    async with trio.open_nursery() as nursery:
        await nursery.start(hive.serve)
        command = arguments(worker_id, model, hive.url, "--slots", str(slots), "--port-from", "18001", *options)
        process = await start_process(command, log, env=env)
        narration: list[Narration] = []
        try:
            with trio.fail_after(30):
                ready = await announce.listen(process, narration.append)
            async with http_client.connect(ready.url, KEY, timeout=20) as client:
                worker = Worker(worker_id, ready.url, process, client, hive, narration, log)
                if loaded:
                    await worker.wait_loaded()
                yield worker
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
            nursery.cancel_scope.cancel()
