"""A queen as a process: what it answers, what it refuses, and how it ends itself and what it started."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import socketserver
import threading
from typing import Any

import psutil
import pytest

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.daemon import instance
from tests.kit.answers import refused
from tests.kit.standins import standin
from tests.kit.streams import events_of
from tests.kit.waiting import wait_until

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="a model's header is read by the engine"
)

TASKS = "/v2/tasks"
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
STREAM = {"Accept": "text/event-stream"}

BAD_TASKS: list[Any] = [
    None,
    [],
    "hunter2",
    {},
    *(
        {"prompt": "hunter2"} | {key: value}
        for key, value in [
            ("prompt", None),
            ("prompt", 7),
            ("prompt", ""),
            ("prompt", "hunter2\0"),
            ("prompt", "hunter2" * 150_000),
            ("prompt", ["hunter2"]),
            ("node", ""),
            ("node", "hunter2 x"),
            ("node", "local\n"),
            ("node", "n" * 64),
            ("node", 1),
            ("model", "hunter2\x1b[2J"),
            ("model", ""),
            ("model", "hf:" + "hunter2" * 100),
            ("model", {}),
            ("max_tokens", 0),
            ("max_tokens", 2**31),
            ("max_tokens", 10**400),
            ("max_tokens", 1.5),
            ("max_tokens", "hunter2"),
            ("max_tokens", None),
            ("temperature", -0.1),
            ("temperature", 2.1),
            ("temperature", "hunter2"),
            ("top_p", 0),
            ("top_p", 1.1),
            ("top_k", -1),
            ("min_p", 2),
            ("repeat_penalty", 0),
            ("seed", -1),
            ("seed", 2**32),
            ("stop", "hunter2"),
            ("stop", [""]),
            ("stop", [1]),
            ("stop", ["hunter2"] * 17),
            ("raw", 1),
            ("relay", "hunter2"),
            ("narrate", None),
            ("stream", True),
            ("backend", "hunter2 x"),
            ("device", -1),
            ("device", "0"),
            ("request_id", "hunter2"),
            ("request_id", UUID + "\n"),
            ("hunter2 x", 1),
        ]
    ),
]
BAD_BYTES = [
    b"",
    b"hunter2",
    b"\xff\xfe",
    b'{"prompt":"hunter2\xff"}',
    b'{"prompt":"hunter2\\ud800"}',
    b'{"prompt":"a","temperature":NaN}',
    b'{"prompt":"a","temperature":1e999}',
    b'{"prompt":"a","temperature":-Infinity}',
    b"[" * 100_000,
    b'{"prompt":' * 100_000,
    b'{"stop":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    '{"prompt":"hunter2"}'.encode("utf-16"),
]


def ends_well(daemon: Any, seconds: float = 20) -> None:
    assert daemon.wait(seconds) == (0, "")


@pytest.fixture(scope="module")
def queen(shared_daemons: Any) -> Any:
    return shared_daemons.start("queen")


# What it answers.


def test_health_needs_no_key(queen: Any) -> None:
    assert queen.announced[-1]["ready"] == {"url": queen.url, "pid": queen.process.pid, "version": __version__}
    with queen.client() as client:
        del client.headers["Authorization"]
        # Its id, which is that of its lock, and its swarm, of which the token cannot be computed.
        lock = instance.find(queen.home, "queen")
        assert lock is not None
        swarm = tokens.swarm_id(queen.token)
        health = {"status": "ok", "version": __version__, "queen_id": lock.id, "swarm": swarm, "api_version": "v2"}
        assert client.get("/health").json() == health
        for path in ("/v2/workers/list", "/v2/workers/health", "/metrics", "/v2/keys", "/v2/requests"):
            assert refused(client.get(path), 401)["code"] == "MISSING_API_KEY"


def test_without_a_hive_there_are_no_workers_and_none_is_started(queen: Any) -> None:
    with queen.client() as client:
        assert client.get("/v2/workers/list").json() == {"workers": []}
        assert client.get("/v2/workers/list", params={"node": "local"}).json() == {"workers": []}
        assert client.get("/v2/workers/health").json() == {"status": "unreachable", "workers": []}
        assert "rbee_nodes 1.0" in client.get("/metrics").text
    assert psutil.Process(queen.process.pid).children() == []


def test_it_takes_little_memory(queen: Any) -> None:
    with queen.client() as client:
        client.get("/metrics")
    assert psutil.Process(queen.process.pid).memory_info().rss < 80_000_000


# What it refuses.


@pytest.mark.parametrize("body", BAD_TASKS, ids=range(len(BAD_TASKS)))
def test_a_bad_task_is_refused_before_a_stream_begins(queen: Any, body: Any) -> None:
    with queen.client() as client:
        for headers in ({}, STREAM):
            error = refused(client.post(TASKS, content=json.dumps(body).encode(), headers=headers), 400)
            assert error["code"] == "INVALID_REQUEST"
            assert error["details"]["field"]
            assert error["details"]["rule"]


@pytest.mark.parametrize("content", BAD_BYTES, ids=range(len(BAD_BYTES)))
def test_a_body_that_cannot_be_read_is_refused(queen: Any, content: bytes) -> None:
    with queen.client() as client:
        refused(client.post(TASKS, content=content), 400)


def test_a_body_of_17_mb_is_refused(queen: Any) -> None:
    with queen.client() as client:
        assert refused(client.post(TASKS, content=b"a" * (17 << 20)), 413)["code"] == "PAYLOAD_TOO_LARGE"


def test_an_unknown_node_is_named(queen: Any) -> None:
    with queen.client() as client:
        for response in (
            client.post(TASKS, json={"prompt": "x", "node": "mars"}),
            client.post(TASKS, json={"prompt": "x", "node": "mars"}, headers=STREAM),
            client.get("/v2/workers/list", params={"node": "mars"}),
            client.get("/v2/workers/health", params={"node": "mars"}),
        ):
            error = refused(response, 404)
            assert error["code"] == "NODE_NOT_FOUND"
            assert error["details"]["node"] == "mars"


@pytest.mark.parametrize("path", ["/v2/workers/list", "/v2/workers/health"])
@pytest.mark.parametrize("node", ["", "hunter2 x", "\x1b[31mhunter2", "local\n", "hunter2" * 1000, "\ud800"])
def test_a_node_that_can_be_none_is_not_repeated(queen: Any, path: str, node: str) -> None:
    with queen.client() as client:
        query = b"node=" + "".join(f"%{byte:02x}" for byte in node.encode("utf-8", "surrogatepass")).encode()
        url = client.base_url.copy_with(path=path, query=query)
        assert refused(client.get(url), 400)["details"]["field"] == "node"


@pytest.mark.parametrize("request_id", [UUID, "hunter2", "%2e%2e", "%00", "%1b", "x" * 5000])
def test_cancelling_what_does_not_run_is_well(queen: Any, request_id: str) -> None:
    with queen.client() as client:
        response = client.delete(f"{TASKS}/{request_id}")
    assert (response.status_code, response.content) == (204, b"")


def test_after_all_that_it_is_well(queen: Any) -> None:
    with queen.client() as client:
        assert client.get("/health").status_code == 200
    assert [line for line in queen.log() if "traceback" in line] == []
    assert psutil.Process(queen.process.pid).children() == []


def test_an_unknown_model_is_named(queen: Any) -> None:
    """Which there are on its disk the hive says, which is started for that."""
    with queen.client() as client:
        for headers in ({}, STREAM):
            error = refused(client.post(TASKS, json={"prompt": "x", "model": "bee-storeis"}, headers=headers), 400)
            assert error["message"] == "no model has this name: bee-storeis"
            assert "builtin:bee-stories" in error["hint"]


# Starting and ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(daemons: Any, number: signal.Signals) -> None:
    queen = daemons.start("queen")
    with queen.client() as client:
        client.get("/health")
        queen.signal(number)
        ends_well(queen, 3)
    assert queen.log()[-1]["message"] == "the queen has ended"


def test_a_second_one_is_refused(daemons: Any) -> None:
    first = daemons.start("queen")
    second = daemons.start("queen")
    code, errors = second.wait()
    assert code == 1
    assert errors.splitlines()[0] == f"rbee: a queen is already running at {first.url} (pid {first.process.pid})"
    assert second.announced[-1]["error"]["code"] == "ALREADY_RUNNING"


def test_an_ephemeral_one_ends_with_its_parent(daemons: Any) -> None:
    queen = daemons.start("queen", "--ephemeral")
    queen.process.stdin.close()
    queen.process.stdin = None
    assert queen.process.wait(20) == 0


# Tasks.


@needs_engine
def test_a_task_starts_what_it_needs_and_the_next_finds_it(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("well"))
    with queen.client() as client:
        with client.stream("POST", TASKS, json={"prompt": "x", "request_id": UUID}, headers=STREAM) as response:
            assert response.headers["X-Request-Id"] == UUID
            events = list(events_of(response))
        *told, (name, handle) = events
        assert name == "worker"
        assert {kind for kind, _ in told} <= {"narration", "progress"}
        assert [event["action"] for _, event in told if event["actor"] == "queen-rbee"] == ["start_hive", "hive_ready"]
        assert {event["correlation_id"] for _, event in told} == {response.headers["X-Correlation-Id"]}
        assert handle["request_id"] == UUID
        wait_until(lambda: [row["state"] for row in client.get("/v2/workers/list").json()["workers"]] == ["idle"])
        (row,) = client.get("/v2/workers/list").json()["workers"]
        assert (row["worker_id"], row["node"], row["url"]) == (handle["worker_id"], "local", handle["worker_url"])
        assert client.get("/v2/workers/health", params={"node": "local"}).json() == {
            "status": "alive",
            "workers": [{"worker_id": row["worker_id"], "state": "idle", "ready": True}],
        }
        again = client.post(TASKS, json={"prompt": "y"}).json()
        assert again["worker_id"] == handle["worker_id"]
        assert again["api_key"] == handle["api_key"]
        assert again["request_id"] != UUID
        assert (
            client.post(TASKS, json={"prompt": "y", "backend": "cpu", "device": 0}).json()["worker_id"]
            == (handle["worker_id"])
        )
        hive = instance.find(queen.home, "hive")
        assert hive is not None
        os.kill(hive.identity.pid, signal.SIGSTOP)
        try:  # of a model that is no file of the user's, the hive is asked nothing
            assert client.post(TASKS, json={"prompt": "z"}).json()["worker_id"] == handle["worker_id"]
        finally:
            os.kill(hive.identity.pid, signal.SIGCONT)
        assert client.delete(f"{TASKS}/{UUID}").status_code == 204
    processes = daemons.left()
    assert len(processes) == 3
    queen.signal()
    ends_well(queen)
    assert daemons.left() == []


@needs_engine
def test_tasks_at_once_share_one_hive_and_one_worker(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("slow"))
    handles: list[dict[str, Any]] = []

    def place() -> None:
        with queen.client() as client:
            handles.append(client.post(TASKS, json={"prompt": "x"}).json())

    threads = [threading.Thread(target=place) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle["worker_id"] for handle in handles}) == 1
    assert len({handle["request_id"] for handle in handles}) == 4
    assert len(daemons.left()) == 3


@needs_engine
def test_one_request_id_cannot_run_twice(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("slow"))
    body = {"prompt": "x", "request_id": UUID}
    with queen.client() as client, client.stream("POST", TASKS, json=body, headers=STREAM) as response:
        events = events_of(response)  # to let go of it would be to leave
        next(events)
        with queen.client() as other:
            assert refused(other.post(TASKS, json=body), 400)["details"]["field"] == "request_id"


@needs_engine
def test_a_task_that_is_cancelled_ends_and_nothing_is_harmed(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("slow"))
    with queen.client() as client:
        with client.stream("POST", TASKS, json={"prompt": "x", "request_id": UUID}, headers=STREAM) as response:
            events = events_of(response)
            next(events)
            with queen.client() as other:
                assert other.delete(f"{TASKS}/{UUID}").status_code == 204
            *_, (_, last) = events
        assert last["error"]["code"] == "CANCELLED"
        assert client.post(TASKS, json={"prompt": "x"}).status_code == 200
    assert [line for line in queen.log() if "traceback" in line] == []


@needs_engine
def test_who_leaves_while_things_start_does_no_harm(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("slow"))
    with queen.client() as client:
        for _ in range(3):
            with client.stream("POST", TASKS, json={"prompt": "x"}, headers=STREAM) as response:
                next(events_of(response))
        assert client.post(TASKS, json={"prompt": "x"}).status_code == 200
        assert len(client.get("/v2/workers/list").json()["workers"]) == 1
    assert [line for line in queen.log() if "traceback" in line] == []


@needs_engine
def test_what_a_worker_says_why_it_cannot_start_reaches_the_caller(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("refuse"))
    with queen.client() as client:
        error = client.post(TASKS, json={"prompt": "x"}).json()["error"]
    assert (error["code"], error["message"]) == ("VRAM_EXHAUSTED", "no room")
    assert error["details"]["node"] == "local"


def test_a_hive_that_cannot_start_is_the_tasks_error_alone(daemons: Any) -> None:
    queen = daemons.start("queen")
    (daemons.home / "models.db").mkdir()
    with queen.client() as client:
        for _ in range(2):
            error = client.post(TASKS, json={"prompt": "x"}).json()["error"]
            assert error["code"] == "STORAGE_FAILED"
            assert "models.db" in error["message"]
        assert client.get("/health").status_code == 200
    wait_until(lambda: psutil.Process(queen.process.pid).children() == [])  # not even a zombie


@needs_engine
def test_a_hive_that_dies_while_it_starts_a_worker_is_the_tasks_error_alone(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("silent"))
    with queen.client() as client:
        with client.stream("POST", TASKS, json={"prompt": "x"}, headers=STREAM) as response:
            for _, event in (events := events_of(response)):
                if event["action"] == "start":
                    break
            (hive,) = psutil.Process(queen.process.pid).children()
            hive.kill()
            *_, (_, last) = events
        assert last["error"]["code"] == "SPAWN_FAILED"
        assert client.get("/health").status_code == 200
        # Until the queen has seen that its child ended, the list rightly calls the node unreachable.
        wait_until(lambda: client.get("/v2/workers/list").json() == {"workers": []})


# What it ends.


@needs_engine
def test_a_killed_queen_that_was_ephemeral_takes_everything_along(daemons: Any) -> None:
    queen = daemons.start("queen", "--ephemeral", RBEE_WORKER_COMMAND=standin("well"))
    with queen.client() as client:
        client.post(TASKS, json={"prompt": "x"})
    assert len(daemons.left()) == 3
    queen.process.kill()
    queen.process.wait()
    wait_until(lambda: daemons.left() == [])


@needs_engine
def test_what_a_killed_queen_left_belongs_to_the_next(daemons: Any) -> None:
    first = daemons.start("queen", RBEE_WORKER_COMMAND=standin("well"))
    with first.client() as client:
        handle = client.post(TASKS, json={"prompt": "x"}).json()
    first.process.kill()
    first.wait()
    assert len(daemons.left()) == 2
    second = daemons.start("queen", RBEE_WORKER_COMMAND=standin("well"))
    with second.client() as client:
        assert client.post(TASKS, json={"prompt": "x"}).json()["worker_id"] == handle["worker_id"]
    second.signal()
    ends_well(second)
    assert daemons.left() == []


@needs_engine
def test_a_hive_that_the_user_started_is_used_and_left(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    queen = daemons.start("queen")
    with queen.client() as client, client.stream("POST", TASKS, json={"prompt": "x"}, headers=STREAM) as response:
        assert "start_hive" not in [event.get("action") for _, event in events_of(response)]
    queen.signal()
    ends_well(queen)
    assert len(daemons.left()) == 2
    with hive.client() as client:
        assert len(client.get("/v1/workers/list").json()["workers"]) == 1
    hive.signal()
    ends_well(hive)


def test_a_queen_that_is_told_to_end_while_its_hive_starts_leaves_nothing(daemons: Any) -> None:
    queen = daemons.start("queen")
    with queen.client() as client, client.stream("POST", TASKS, json={"prompt": "x"}, headers=STREAM) as response:
        for _, event in events_of(response):
            if event.get("action") == "start_hive":
                break
        wait_until(lambda: len(daemons.left()) == 2)
        queen.signal()
        ends_well(queen)
    wait_until(lambda: daemons.left() == [])


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", b"SSH-2.0-x\r\n", b""]
)
def test_another_program_at_the_hives_port_is_named_with_the_setting_that_helps(daemons: Any, answer: bytes) -> None:
    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as other:
        port = other.server_address[1]
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        queen = daemons.start("queen", RBEE_HIVE_PORT=str(port))
        with queen.client() as client:
            error = client.post(TASKS, json={"prompt": "x"}).json()["error"]
        other.shutdown()
        thread.join()
    assert error["code"] == "PORT_IN_USE"
    assert error["details"]["port"] == port
    assert f"port {port} is taken by " in error["message"]
    assert f"(pid {os.getpid()})" in error["message"]
    assert "RBEE_HIVE_PORT" in error["hint"]
    queen.signal()
    ends_well(queen)


def test_a_program_that_never_answers_at_the_hives_port_is_named(daemons: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        queen = daemons.start("queen", RBEE_HIVE_PORT=str(other.getsockname()[1]), RBEE_TIMEOUTS_CALL="0.5")
        with queen.client() as client:
            assert client.post(TASKS, json={"prompt": "x"}).json()["error"]["code"] == "PORT_IN_USE"
    queen.signal()
    ends_well(queen)
