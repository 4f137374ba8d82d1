"""More requests than slots, at a real queen with the real engine: they wait in line where they ask to."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT
from tests.kit.models import make
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

TASK = {"prompt": "The bee", "max_tokens": 40, "relay": True, "temperature": 0}
STREAM = {"Accept": "text/event-stream"}


def relay(queen: Any, **more: Any) -> list[dict[str, Any]]:
    """Run a task through the queen; returns the data of its events, errors too."""
    with queen.client() as client:
        text = client.post("/v2/tasks", json=TASK | more, headers=STREAM, timeout=120).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_all_of_many_requests_are_served_one_after_the_other(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_SLOTS="1")
    answers: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: answers.append(relay(queen, wait_s=100))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    for events in answers:
        assert events[-1].get("done"), events[-1]
    with queen.client() as client:
        (worker,) = client.get("/v2/workers/list").json()["workers"]
    assert worker["slots_total"] == 1
    queen.signal()
    assert queen.wait(60)[0] == 0
    assert daemons.left() == []


def test_nine_commands_at_once_on_four_slots_get_nine_answers(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_SLOTS="4")
    command = [sys.executable, "-m", "rbee", "infer", "--prompt", "The bee", "--max-tokens", "60"]
    environment = os.environ | {"RBEE_HOME": str(daemons.home)}
    pipe = subprocess.PIPE
    keepers = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        for _ in range(9)
    ]
    ends = [(keeper.communicate(timeout=PATIENCE), keeper.returncode) for keeper in keepers]
    assert [code for _, code in ends] == [0] * 9, ends
    assert all(len(out) > 1 for (out, _), _ in ends)
    with queen.client() as client:
        assert len(client.get("/v2/workers/list").json()["workers"]) == 1


def test_a_client_of_one_object_that_leaves_the_line_is_gone_from_it(daemons: Any, tmp_path: Path) -> None:
    """It gets nothing while it waits, so nothing fails to be sent either."""
    model = f"file:{make(tmp_path / 'letters.gguf', width=1024, context=16_384)}"
    queen = daemons.start("queen", RBEE_WORKER_SLOTS="1", RBEE_WORKER_CONTEXT="16384")
    holding = {"model": model, "prompt": "A", "max_tokens": 16_000}
    request_id = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
    with queen.client() as client, client.stream("POST", "/v2/tasks", json=TASK | holding, headers=STREAM) as held:
        lines = held.iter_lines()
        next(line for line in lines if "token" in line)
        waiting = {"model": model, "relay": False, "wait_s": 600, "request_id": request_id}
        body = json.dumps(TASK | waiting).encode()
        head = f"POST /v2/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {queen.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(queen.url.rpartition(":")[2]))) as leaving:
            leaving.sendall(head.encode() + body)
            wait_until(lambda: state_of(queen, request_id) == "waiting", "it stands in line")
        wait_until(lambda: state_of(queen, request_id) is None, "it is gone")


def state_of(queen: Any, request_id: str) -> str | None:
    """Return what the queen says of a task; None where it handles none of this id."""
    with queen.client() as client, client.stream("GET", "/v2/events") as events:
        state = json.loads(
            next(line for line in events.iter_lines() if line.startswith("data: ")).removeprefix("data: ")
        )
    found = [task["state"] for task in state["tasks"] if task["request_id"] == request_id]
    return str(found[0]) if found else None


def test_who_does_not_wait_or_waits_in_vain_is_told(daemons: Any, tmp_path: Path) -> None:
    model = f"file:{make(tmp_path / 'letters.gguf', width=1024, context=4096)}"
    queen = daemons.start("queen", RBEE_WORKER_SLOTS="1", RBEE_QUEEN_MAX_WAITING="1")
    relay(queen, model=model, max_tokens=1)
    with queen.client() as client:
        handle = client.post("/v2/tasks", json=TASK | {"relay": False, "model": model}).json()
        with client.stream(
            "POST",
            handle["worker_url"] + "/v1/inference",
            json={"prompt": "A", "max_tokens": 4000, "temperature": 0},  # capital letters go round for ever
            headers={"Authorization": f"Bearer {handle['api_key']}"},
        ) as running:
            chunks = running.iter_bytes()  # closed with its last reference, and the stream with it
            next(chunks)
            assert relay(queen, model=model)[-1]["error"]["code"] == "ALL_SLOTS_BUSY"
            error = relay(queen, model=model, wait_s=0.1)[-1]["error"]
            assert error["code"] == "ALL_SLOTS_BUSY"
            assert error["details"]["waited_s"] == 0.1
            # It has not ended meanwhile, or the errors would prove nothing.
            assert client.get("/v2/workers/list").json()["workers"][0]["state"] == "busy"
    queen.signal()
    assert queen.wait(60)[0] == 0
    assert daemons.left() == []
