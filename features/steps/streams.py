"""Steps that talk HTTP to queen, hive and worker, as any client may."""

from __future__ import annotations

import json
import threading
import uuid
from typing import TYPE_CHECKING

import httpx
from pytest_bdd import given, parsers, then, when

from tests.kit.local_http import LOCAL
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen

CODES = {
    "INVALID_REQUEST",
    "NODE_NOT_FOUND",
    "MODEL_NOT_FOUND",
    "BACKEND_UNAVAILABLE",
    "DEVICE_OUT_OF_RANGE",
    "WORKER_NOT_FOUND",
    "MISSING_API_KEY",
    "INVALID_API_KEY",
    "VRAM_EXHAUSTED",
    "PAYLOAD_TOO_LARGE",
}
PROMPTS_THAT_ARE_NO_TEXT = (b'{"prompt":"a\xff"}', b'{"prompt":"a\\u0000b"}', b'{"prompt":"\\ud800"}', b'{"prompt":""}')


def events(answer: httpx.Response) -> list[str]:
    """Return the data of each event of a stream, the last one too."""
    lines = [line for line in answer.iter_lines() if line]
    assert not any(line.startswith("id:") for line in lines)
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@given("a worker that is idle")
def _idle_worker(machine: Machine, seen: Seen) -> None:
    with machine.queen() as queen:
        answer = queen.post("/v2/tasks", json={"prompt": "Hello", "node": "local"})
    assert answer.status_code == 200, answer.text
    seen.task = answer.json()
    seen.row = machine.wait_for_worker("idle")


@when("a client asks the queen for a task")
def _task(machine: Machine, seen: Seen) -> None:
    with machine.queen() as queen:
        seen.second = queen.post("/v2/tasks", json={"prompt": "Hello"}).json()


@then("the task names that worker")
def _that_worker(seen: Seen) -> None:
    assert seen.second["worker_id"] == seen.task["worker_id"]
    assert seen.second["state"] == "idle"


@then("no worker was started for it")
def _none_started(machine: Machine) -> None:
    starts = [line for line in machine.hive_log() if "started with pid" in line["message"]]
    assert len(starts) == len(machine.workers()) == 1


@then("nothing was checked for it, and no worker was started for it")
def _straight(machine: Machine, seen: Seen) -> None:
    told = seen.done.stderr.decode()
    for word in ("Starting", "free RAM", "Downloading"):
        assert word not in told
    _none_started(machine)


@when(parsers.parse("a client asks the worker for {count:d} tokens"))
def _inference(machine: Machine, seen: Seen, count: int) -> None:
    task, states, ended = seen.task, [], threading.Event()

    def watch() -> None:
        with machine.client(task["worker_url"], task["api_key"]) as client, client.stream("GET", "/v1/events") as found:
            for line in found.iter_lines():
                if line.startswith("data: {"):
                    states.append(json.loads(line.removeprefix("data: "))["state"])
                if ended.is_set() and states[-1] == "idle":
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    wait_until(lambda: states)
    body = {"prompt": "Once upon a time", "max_tokens": count, "seed": 1, "stream": True}
    with (
        machine.client(task["worker_url"], task["api_key"]) as client,
        client.stream("POST", "/v1/inference", json=body) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen.events = events(answer)
    ended.set()
    watcher.join(20)
    assert not watcher.is_alive(), states
    seen.states = states


@then("the tokens count from 0 and come one by one")
def _tokens(seen: Seen) -> None:
    tokens = [json.loads(data) for data in seen.events[:-2]]
    assert [token["index"] for token in tokens] == list(range(len(tokens)))
    assert len(tokens) > 10
    assert all(token["token"] for token in tokens)


@then("the stream ends with the total, the duration and the last event")
def _done(seen: Seen) -> None:
    done, last = json.loads(seen.events[-2]), seen.events[-1]
    assert done["done"] is True
    assert done["total_tokens"] >= len(seen.events) - 2
    assert done["duration_ms"] > 0
    assert done["stop_reason"] in ("eos", "length")
    assert last == "[DONE]"


@then("the worker was seen idle, busy and idle again")
def _states(seen: Seen) -> None:
    changes = [state for at, state in enumerate(seen.states) if at == 0 or seen.states[at - 1] != state]
    assert changes == ["idle", "busy", "idle"]


@when("clients send requests that must fail to queen, hive and worker")
def _failing(machine: Machine, seen: Seen) -> None:
    task, mark = seen.task, str(uuid.uuid4())
    seen.correlation = mark
    nobody = str(uuid.uuid4())
    with machine.queen() as queen, machine.hive() as hive:
        worker = machine.client(task["worker_url"], task["api_key"])
        stranger = machine.client(task["worker_url"], "rbee_w_wrong")
        nameless = httpx.Client(base_url=str(hive.base_url), **LOCAL)
        with worker, stranger, nameless:
            for client in (queen, hive, worker, stranger, nameless):
                client.headers["X-Correlation-Id"] = mark
            spawn = "/v1/workers/spawn"
            seen.answers = [
                queen.post("/v2/tasks", json={"prompt": "a", "node": "nowhere"}),
                queen.post("/v2/tasks", json={"prompt": "a", "model": "nonsense"}),
                queen.post("/v2/tasks", json={"prompt": "a", "temperature": 3}),
                queen.get("/v2/workers/health", params={"node": "nowhere"}),
                hive.post(spawn, json={"model_ref": "file:/nowhere.gguf"}),
                hive.post(spawn, json={"model_ref": "builtin:bee-stories", "backend": "metal"}),
                hive.post(spawn, json={"model_ref": "builtin:bee-stories", "device": 99}),
                hive.post(spawn, json={"model_ref": "builtin:bee-stories", "context": 16777216, "slots": 64}),
                hive.delete(f"/v1/workers/{nobody}"),
                nameless.get("/v1/workers/list"),
                worker.post("/v1/inference", json={"prompt": "a", "max_tokens": 0}),
                worker.post("/v1/inference", content=b"{" + b"x" * 17_000_000),
                stranger.post("/v1/inference", json={"prompt": "a"}),
            ]


@then("each answer is an error object with a published code, a message, details and the correlation id")
def _error_objects(seen: Seen) -> None:
    found = set()
    for answer in seen.answers:
        assert 400 <= answer.status_code <= 507, answer.text
        error = answer.json()["error"]
        assert error["correlation_id"] == seen.correlation == answer.headers["X-Correlation-Id"]
        assert error["message"]
        assert isinstance(error["details"], dict)
        if error["code"] == "VRAM_EXHAUSTED":
            assert error["details"]["required"] > error["details"]["available"] > 0
        found.add(error["code"])
    assert found == CODES


@when("clients send prompts that are no text to queen and worker")
def _no_text(machine: Machine, seen: Seen) -> None:
    task = seen.task
    with machine.queen() as queen, machine.client(task["worker_url"], task["api_key"]) as worker:
        seen.answers = [
            client.post(path, content=body)
            for client, path in ((queen, "/v2/tasks"), (worker, "/v1/inference"))
            for body in PROMPTS_THAT_ARE_NO_TEXT
        ]


@then(parsers.parse("each answer has status {status:d} and code {code}"))
def _status(seen: Seen, status: int, code: str) -> None:
    assert len(seen.answers) == 2 * len(PROMPTS_THAT_ARE_NO_TEXT)
    for answer in seen.answers:
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
