"""Steps about how a worker starts, loads and calls back."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from pytest_bdd import given, then, when

from features.lab.models import make_model
from features.lab.terminal import run_on_terminal
from features.steps.streams import events
from tests.kit.local_http import LOCAL
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen

BUNDLED = "rbee/data/bee-stories.Q8_0.gguf"


@given("a model that takes a while to load")
def _slow_model(tmp_path: Path, seen: Seen) -> None:
    seen.model = f"file:{make_model(tmp_path / 'slow.gguf', layers=48, width=1024)}"


@when("a client asks the hive to start a worker for it")
def _spawn(machine: Machine, seen: Seen) -> None:
    with machine.hive() as hive:
        answer = hive.post("/v1/workers/spawn", json={"model_ref": seen.model, "backend": "cpu", "device": 0})
    assert answer.status_code == 200, answer.text
    seen.spawned = answer.json()
    seen.ready = httpx.get(f"{seen.spawned['url']}/v1/ready", **LOCAL).json()


@then("the answer has state loading and came before the model was loaded")
def _did_not_wait(seen: Seen) -> None:
    assert seen.spawned["state"] == "loading"
    assert seen.ready["state"] == "loading"


@then("the worker's process has model, backend, device and port in its arguments")
def _arguments(machine: Machine, seen: Seen) -> None:
    ((pid, words),) = machine.worker_processes().items()
    seen.pid = pid
    given_options = dict(zip(words[3::2], words[4::2], strict=True))
    assert given_options["--model-ref"] == seen.model
    assert given_options["--backend"] == "cpu"
    assert given_options["--device"] == "0"
    assert given_options["--port-from"] == machine.env["RBEE_WORKER_PORT_FROM"]


@then("the worker's key is neither in its arguments nor in its environment")
def _no_key(seen: Seen) -> None:
    key = seen.spawned["api_key"].encode()
    assert len(key) > 30
    for file in ("cmdline", "environ"):
        assert key not in Path(f"/proc/{seen.pid}/{file}").read_bytes()


@then("the worker listens on the first free port")
def _port(machine: Machine, seen: Seen) -> None:
    port = urlsplit(seen.spawned["url"]).port
    assert port is not None
    first = int(machine.env["RBEE_WORKER_PORT_FROM"])
    assert port >= first
    # The machine is not ours alone: those before it must be in somebody else's hands.
    assert [other for other in range(first, port) if _is_free(other)] == []


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


class _Callback(BaseHTTPRequestHandler):
    """Takes a worker's callback, and notes it."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        ready = httpx.get(f"{body['url']}/v1/ready", **LOCAL).json()
        self.server.received.append((self.path, self.headers["Authorization"], body, ready))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@given("the test listens as a hive would")
def _listen(seen: Seen) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Callback)
    server.received = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.listener = server


@when("a worker is started for it")
def _start_worker(machine: Machine, seen: Seen) -> None:
    port = seen.listener.server_address[1]
    seen.id = str(uuid.uuid4())
    child = machine.start(
        *(
            "worker",
            "--id",
            seen.id,
            "--model-ref",
            "builtin:bee-stories",
            "--model-path",
            str(Path(BUNDLED).absolute()),
        ),
        *("--backend", "cpu", "--device", "0", "--slots", "1", "--host", "127.0.0.1"),
        *("--port-from", machine.env["RBEE_WORKER_PORT_FROM"], "--hive-url", f"http://127.0.0.1:{port}"),
        stdin=subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps({"key": "the-worker-s-key"}).encode() + b"\n")
    child.stdin.close()
    child.stdin = None
    wait_until(lambda: seen.listener.received)
    seen.listener.shutdown()
    seen.listener.server_close()


@then("it posts worker_id, url, model_ref, backend and device with its key")
def _callback(seen: Seen) -> None:
    path, authorization, body, _ = seen.listener.received[0]
    assert path == "/v1/workers/ready"
    assert authorization == "Bearer the-worker-s-key"
    assert set(body) == {"worker_id", "url", "model_ref", "backend", "device"}
    assert (body["worker_id"], body["model_ref"]) == (seen.id, "builtin:bee-stories")
    assert (body["backend"], body["device"]) == ("cpu", 0)


@then("the url answers before the model is loaded")
def _answers_early(seen: Seen) -> None:
    ready = seen.listener.received[0][3]
    assert (ready["ready"], ready["state"]) == (False, "loading")


@when("a callback names a worker that was never started")
def _foreign_callback(machine: Machine, seen: Seen) -> None:
    body = {
        "worker_id": str(uuid.uuid4()),
        "url": "http://127.0.0.1:1",
        "model_ref": "builtin:bee-stories",
        "backend": "cpu",
        "device": 0,
    }
    with machine.hive() as hive:
        seen.answer = hive.post("/v1/workers/ready", json=body)


@then("the hive answers it with 404")
def _not_found(machine: Machine, seen: Seen) -> None:
    assert seen.answer.status_code == 404
    assert seen.answer.json()["error"]["code"] == "WORKER_NOT_FOUND"
    assert machine.workers() == []


@then("its readiness is false with state loading and an absolute progress URL")
def _loading(seen: Seen) -> None:
    assert (seen.ready["ready"], seen.ready["state"]) == (False, "loading")
    assert seen.ready["progress_url"] == f"{seen.spawned['url']}/v1/loading/progress"


def _progress(machine: Machine, seen: Seen) -> list[str]:
    url = seen.ready["progress_url"]
    with machine.client(url, seen.spawned["api_key"]) as client, client.stream("GET", url) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return events(answer)


@then("that URL answers with an event stream")
def _is_stream(machine: Machine, seen: Seen) -> None:
    assert _progress(machine, seen)[-1] == "[DONE]"


@then("its loading stream counts layers up to the total, with megabytes")
def _layers(machine: Machine, seen: Seen) -> None:
    seen.progress = _progress(machine, seen)
    steps = [json.loads(data) for data in seen.progress[:-2]]
    assert all(step["stage"] == "loading_to_vram" for step in steps)
    loaded = [step["layers_loaded"] for step in steps]
    assert loaded == sorted(loaded)
    assert len(set(loaded)) > 1
    assert loaded[-1] == steps[-1]["layers_total"] == 48
    assert 100 < steps[-1]["vram_mb"] < 1000


@then("the stream ends with ready and the last event")
def _loaded(seen: Seen) -> None:
    assert json.loads(seen.progress[-2]) == {"stage": "ready"}
    assert seen.progress[-1] == "[DONE]"


@when("the user runs infer with it on a terminal")
def _on_terminal(machine: Machine, seen: Seen) -> None:
    seen.shown = run_on_terminal(machine, "infer", "--model", seen.model, "--prompt", "Hello", "--max-tokens", "3")
    assert seen.shown.returncode == 0, seen.shown


@then("the terminal showed a bar with layers")
def _bar(seen: Seen) -> None:
    assert "layers" in seen.shown.text
    assert "/48" in seen.shown.text.replace(" ", "")


@then("its readiness is true with state idle and the model loaded")
def _ready(seen: Seen) -> None:
    ready = httpx.get(f"{seen.task['worker_url']}/v1/ready", **LOCAL).json()
    assert ready["ready"] is True
    assert ready["state"] == "idle"
    assert ready["model_loaded"] is True
