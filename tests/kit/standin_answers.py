"""What the stand-in for a worker answers over HTTP; its log, which is stderr, names each call that it gets."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEARTBEAT = 0.5
LAYERS = {"layers_loaded": 3, "layers_total": 8}
WORDS = ("Once", " upon", " a", " time", " there", " was", " a", " bee")


class Worker:
    """Who it is, how it behaves, and how many requests it serves now."""

    def __init__(self, worker_id: str, key: str, slots: int, behaves: set[str], after: int, pace: float) -> None:
        self.id = worker_id
        self.key = key
        self.slots = slots
        self.behaves = behaves
        self.after = after
        self.pace = pace
        self.url = ""
        self.requests: dict[str, threading.Event] = {}

    @property
    def is_loading(self) -> bool:
        return bool(self.behaves & {"loading", "fall", "hungry"})

    @property
    def slots_busy(self) -> int:
        return self.slots if "busy" in self.behaves else len(self.requests)

    def status(self) -> dict[str, object]:
        """Return what the event stream tells."""
        if self.is_loading:
            return {"state": "loading", "slots_total": self.slots, "slots_available": 0} | LAYERS
        free = self.slots - self.slots_busy
        return {"state": "busy" if self.slots_busy else "idle", "slots_total": self.slots, "slots_available": free}

    @contextmanager
    def serving(self, request_id: str) -> Iterator[threading.Event]:
        """Take a slot; the event is set when the request is to stop."""
        stopped = self.requests[request_id] = threading.Event()
        try:
            yield stopped
        finally:
            del self.requests[request_id]


def take_all_memory() -> None:
    """Take memory up to a limit of its own, so that the machine suffers nothing; then end as the kernel does."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.getrlimit(resource.RLIMIT_AS)[1]))
    held = []
    with suppress(MemoryError):
        while True:
            held.append(b"\1" * 10_000_000)
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def fault() -> None:
    """End as native code does that reads where nothing is: at once, not when another thread takes the signal."""
    signal.raise_signal(signal.SIGSEGV)


def handler(worker: Worker) -> type[BaseHTTPRequestHandler]:
    """Return what answers the hive and the keeper."""
    behaves = worker.behaves

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the library's name)
            pass

        def is_allowed(self) -> bool:
            sys.stderr.write(f"{self.command} {self.path}\n")
            sys.stderr.flush()
            if self.headers["Authorization"] == f"Bearer {worker.key}":
                return True
            self.answer(401)
            return False

        def answer(self, status: int, body: object = None) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def begin_stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()

        def send(self, data: object) -> None:
            self.wfile.write(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")
            self.wfile.flush()

        def do_GET(self) -> None:
            if self.path == "/v1/health":
                if "deaf" in behaves:
                    time.sleep(600)
                name = "another" if "impostor" in behaves else worker.id
                self.answer(200, {"status": "alive", "version": "0", "api_version": "v1", "worker_id": name})
            elif self.path == "/v1/ready":
                self.answer(200, self.ready())
            elif self.is_allowed() and self.path == "/v1/events":
                self.begin_stream()
                while True:
                    self.send(worker.status())
                    time.sleep(0.1)
            elif self.path == "/v1/loading/progress":
                self.load()

        def ready(self) -> dict[str, object]:
            if worker.is_loading:
                return {"ready": False, "state": "loading", "progress_url": f"{worker.url}/v1/loading/progress"}
            return {"ready": True, "state": worker.status()["state"], "model_loaded": True}

        def load(self) -> None:
            self.begin_stream()
            self.send({"stage": "loading_to_vram", "vram_mb": 3.5} | LAYERS)
            self.keep_waiting(threading.Event())

        def keep_waiting(self, until: threading.Event) -> None:
            while not until.wait(HEARTBEAT):
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if not self.is_allowed():
                return
            if self.path == "/v1/inference":
                self.infer(json.loads(content))
            elif self.path == "/v1/admin/shutdown":
                if "stubborn" in behaves:
                    time.sleep(600)
                self.answer(202)
                self.wfile.flush()
                os._exit(0)

        def infer(self, request: dict[str, Any]) -> None:
            sys.stderr.write(f"request {request['request_id']}\n")
            sys.stderr.flush()
            if worker.slots_busy >= worker.slots:
                busy = {"slots_total": worker.slots, "slots_busy": worker.slots_busy}
                said = {"code": "ALL_SLOTS_BUSY", "message": "all slots are busy", "details": busy}
                self.answer(503, {"error": said | busy})
                return
            self.begin_stream()
            with worker.serving(request["request_id"]) as stopped:
                if "hang" in behaves:
                    self.keep_waiting(stopped)
                elif request.get("typed") or "conversation" in request:
                    self.answer_typed(request, stopped)
                else:
                    self.generate(request.get("max_tokens", 20), stopped)

        def answer_typed(self, request: dict[str, Any], stopped: threading.Event) -> None:
            """Answer as a conversation is answered; a tool that is offered is called, until it has answered."""
            conversation = request.get("conversation", {})
            tools, messages = conversation.get("tools", []), conversation.get("messages", [{"role": "user"}])
            count, choices = request.get("max_tokens", 20), request.get("choices", 1)
            reason = "length" if "max_tokens" in request else "stop"
            self.send({"type": "prompt", "tokens": 7, "cached": 2})
            for choice in range(choices):
                if tools and messages[-1]["role"] != "tool":
                    began = {"type": "tool_call", "choice": choice, "index": 0, "id": f"call_{len(messages)}"}
                    self.send(began | {"name": tools[0]["name"]})
                    self.send({"type": "arguments", "choice": choice, "index": 0, "arguments": "{}"})
                    self.send({"type": "choice_ended", "choice": choice, "reason": "tool_calls"})
                elif self.speak(
                    count, stopped, lambda word, _, choice=choice: {"type": "text", "choice": choice, "text": word}
                ):
                    self.send({"type": "choice_ended", "choice": choice, "reason": reason})
                else:
                    return
            usage = {
                "prompt_tokens": 7,
                "completion_tokens": count * choices,
                "cached_tokens": 2,
                "reasoning_tokens": 0,
            }
            self.send({"type": "answer_ended", "usage": usage, "duration_ms": 1.0})
            self.send(b"[DONE]")

        def generate(self, count: int, stopped: threading.Event) -> None:
            if self.speak(count, stopped, lambda word, index: {"token": word, "index": index}):
                self.send({"done": True, "total_tokens": count, "duration_ms": 1.0, "stop_reason": "length"})
                self.send(b"[DONE]")

        def speak(self, count: int, stopped: threading.Event, event: Callable[[str, int], object]) -> bool:
            """Send so many words; returns whether that came to its end."""
            for index in range(count):
                if index == worker.after:
                    if "crash" in behaves:
                        os._exit(1)
                    if "segfault" in behaves:
                        fault()
                    if "cut" in behaves:
                        return False
                    if "pause" in behaves:
                        self.keep_waiting(stopped)
                        return False
                if stopped.wait(worker.pace):
                    return False
                self.send(event(WORDS[index % len(WORDS)], index))
            return True

        def do_DELETE(self) -> None:
            if not self.is_allowed():
                return
            if "mute" in behaves:
                time.sleep(600)
            if (stopped := worker.requests.get(self.path.rpartition("/")[2])) is not None:
                stopped.set()
            self.answer(204)

    return Handler
