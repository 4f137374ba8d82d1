"""A hive as a process: what it answers, what it refuses, and how it and its workers end."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from rbee import __version__
from tests.kit.answers import refused
from tests.kit.processes import has_ended
from tests.kit.standins import standin
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="a model's header is read by the engine"
)

MODEL = "builtin:bee-stories"
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
NAN = b'{"model_ref":"a","context":NaN}'

SPAWN = "/v1/workers/spawn"
READY = "/v1/workers/ready"
CALLBACK = {"worker_id": UUID, "url": "http://127.0.0.1:1", "model_ref": "m", "backend": "cpu", "device": 0}
BAD_SPAWNS: list[Any] = [
    {},
    [],
    None,
    {"model_ref": None},
    {"model_ref": 7},
    {"model_ref": ""},
    {"model_ref": "hunter2"},
    {"model_ref": "hunter2\n"},
    {"model_ref": "hunter2" * 100},
    {"model_ref": ["hunter2"]},
    {"model_ref": MODEL, "hunter2 x": 1},
    {"model_ref": MODEL, "backend": 1},
    {"model_ref": MODEL, "backend": "hunter2 x"},
    {"model_ref": MODEL, "device": -1},
    {"model_ref": MODEL, "device": 1024},
    {"model_ref": MODEL, "device": "0"},
    {"model_ref": MODEL, "device": 0.5},
    {"model_ref": MODEL, "slots": 0},
    {"model_ref": MODEL, "slots": 65},
    {"model_ref": MODEL, "slots": True},
    {"model_ref": MODEL, "context": 15},
    {"model_ref": MODEL, "context": 2**24 + 1},
    {"model_ref": MODEL, "context": 10**400},
]
BAD_CALLBACKS: list[Any] = [
    {},
    [],
    *({key: value for key, value in CALLBACK.items() if key != missing} for missing in CALLBACK),
    *(
        CALLBACK | {key: value}
        for key, value in [
            ("worker_id", "hunter2"),
            ("worker_id", 7),
            ("worker_id", UUID + "\n"),
            ("url", "hunter2"),
            ("url", "http://"),
            ("url", "http://x y"),
            ("url", "http://x\n"),
            ("url", "file:///hunter2"),
            ("url", "http://" + "x" * 512),
            ("model_ref", "\x1b[31mhunter2"),
            ("backend", ""),
            ("backend", "cpu\n"),
            ("device", 10**30),
            ("device", None),
            ("hunter2 x", 1),
        ]
    ),
]
BAD_BYTES = [
    b"",
    b"hunter2",
    b"\xff\xfe",
    b'{"model_ref":"hunter2\xff"}',
    b'{"model_ref":"\\ud800"}',
    NAN,
    b'{"model_ref":"a","context":1e999}',
    b"[" * 100_000,
    b'{"model_ref":' * 100_000,
    b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "{}".encode("utf-16"),
]


@pytest.fixture(scope="module")
def hive(shared_daemons: Any) -> Any:
    return shared_daemons.start("hive", RBEE_TIMEOUTS_DOWNLOAD_DELAYS="0.01 0.01 0.01 0.01 0.01")


# What it answers.


def test_it_announces_where_it_is(hive: Any) -> None:
    ready = dict(hive.announced[-1]["ready"])
    assert re.fullmatch(r"[0-9a-f]{32}", ready.pop("id"))
    assert ready == {"url": hive.url, "pid": hive.process.pid, "version": __version__}
    assert hive.url.startswith("http://127.0.0.1:")


def test_health_needs_no_key(hive: Any) -> None:
    with hive.client() as client:
        del client.headers["Authorization"]
        health = client.get("/v1/health").json()
        assert health.pop("hive_id") == hive.announced[-1]["ready"]["id"]
        assert re.fullmatch(r"[0-9a-f]{32}", health.pop("swarm"))
        assert health == {"status": "alive", "version": __version__, "api_version": "v1", "started_by": "user"}
        for path in ("/v1/workers/list", "/v1/backends", "/v1/resources", "/metrics"):
            assert refused(client.get(path), 401)["code"] == "MISSING_API_KEY"


def test_without_workers_the_list_is_empty(hive: Any) -> None:
    with hive.client() as client:
        assert client.get("/v1/workers/list").json() == {"workers": []}


def test_backends_and_resources_are_shown(hive: Any) -> None:
    with hive.client() as client:
        backends = client.get("/v1/backends").json()["backends"]
        resources = client.get("/v1/resources").json()
    (cpu,) = [backend for backend in backends if backend["name"] == "cpu"]
    assert cpu["devices"][0]["memory_total"] >= cpu["devices"][0]["memory_available"] > 0
    for name in ("memory", "disk"):
        assert resources[name]["total"] >= resources[name]["available"] > 0


def test_figures_are_shown(hive: Any) -> None:
    with hive.client() as client:
        assert "rbee_slots_available 0.0" in client.get("/metrics").text


def test_it_takes_little_memory(hive: Any) -> None:
    with hive.client() as client:
        client.get("/metrics")
    assert psutil.Process(hive.process.pid).memory_info().rss < 80_000_000


def test_its_files_are_private_and_its_log_is_json(hive: Any) -> None:
    assert hive.home.stat().st_mode & 0o777 == 0o700
    assert (hive.home / "token").stat().st_mode & 0o777 == 0o600
    assert f"answers at {hive.url}" in " ".join(line["message"] for line in hive.log())
    assert hive.token not in (hive.home / "logs/hive.log").read_text()


# What it refuses.


@pytest.mark.parametrize("body", BAD_SPAWNS)
def test_a_bad_spawn_is_refused(hive: Any, body: Any) -> None:
    with hive.client() as client:
        error = refused(client.post(SPAWN, content=json.dumps(body).encode()), 400)
    assert error["code"] == "INVALID_REQUEST"
    assert error["details"]["field"]
    assert error["details"]["rule"]


@pytest.mark.parametrize("body", BAD_CALLBACKS)
def test_a_bad_callback_is_refused(hive: Any, body: Any) -> None:
    with hive.client() as client:
        error = refused(client.post(READY, content=json.dumps(body).encode()), 400)
    assert error["details"]["field"]
    assert error["details"]["rule"]


@pytest.mark.parametrize("path", [SPAWN, READY])
@pytest.mark.parametrize("content", BAD_BYTES, ids=range(len(BAD_BYTES)))
def test_a_body_that_cannot_be_read_is_refused(hive: Any, path: str, content: bytes) -> None:
    with hive.client() as client:
        refused(client.post(path, content=content), 400)


@pytest.mark.parametrize("path", [SPAWN, READY])
def test_a_body_of_17_mb_is_refused(hive: Any, path: str) -> None:
    with hive.client() as client:
        assert refused(client.post(path, content=b"a" * (17 << 20)), 413)["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("path", ["hunter2", "..", "%2e%2e", "%00", "%0a", "%1b[31m", UUID, "x" * 5000])
def test_ending_a_worker_that_does_not_exist_is_refused(hive: Any, path: str) -> None:
    with hive.client() as client:
        refused(client.delete(f"/v1/workers/{path}"), 404)


def test_a_stranger_cannot_call_back(hive: Any) -> None:
    with hive.client() as client:
        assert refused(client.post(READY, json=CALLBACK), 404)["code"] == "WORKER_NOT_FOUND"
        client.headers["Authorization"] = "Bearer rbee_w_guess"
        assert refused(client.post(READY, json=CALLBACK), 401)["code"] == "INVALID_API_KEY"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model_ref": "hf:org/repo"}, "DOWNLOAD_FAILED"),
        ({"model_ref": "file:/nowhere/hunter2.gguf"}, "MODEL_NOT_FOUND"),
        ({"model_ref": MODEL, "backend": "metal"}, "BACKEND_UNAVAILABLE"),
        ({"model_ref": MODEL, "device": 9}, "DEVICE_OUT_OF_RANGE"),
    ],
)
def test_what_is_not_there_is_an_error(hive: Any, body: dict[str, Any], code: str) -> None:
    with hive.client() as client:
        response = client.post(SPAWN, json=body)
        assert response.json()["error"]["code"] == code
        events = client.post(SPAWN, json=body, headers={"Accept": "text/event-stream"}).text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == code


@needs_engine
@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 1000, b"not a model" * 100, b"\x7fELF"])
def test_a_file_that_is_no_model_is_refused(hive: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with hive.client() as client:
        response = client.post(SPAWN, json={"model_ref": f"file:{tmp_path}/m.gguf"})
    assert response.json()["error"]["code"] == "MODEL_LOAD_FAILED"
    assert str(tmp_path) not in response.text


def test_after_all_that_it_is_well(hive: Any) -> None:
    with hive.client() as client:
        assert client.get("/v1/workers/list").json() == {"workers": []}
    assert [line for line in hive.log() if "traceback" in line] == []


# Starting and ending.


def ends_well(daemon: Any, seconds: float = 20) -> None:
    code, errors = daemon.wait(seconds)
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(daemons: Any, number: signal.Signals) -> None:
    hive = daemons.start("hive")
    with hive.client() as client:
        client.get("/v1/health")
        hive.signal(number)
        ends_well(hive, 3)
    assert hive.log()[-1]["message"] == "the hive has ended"


def test_a_call_ends_it(daemons: Any) -> None:
    hive = daemons.start("hive")
    with hive.client() as client:
        assert client.post("/v1/admin/shutdown").status_code == 202
    ends_well(hive)


def test_an_ephemeral_one_ends_with_its_parent(daemons: Any) -> None:
    hive = daemons.start("hive", "--ephemeral")
    hive.process.stdin.close()
    hive.process.stdin = None
    assert hive.process.wait(20) == 0


def test_the_next_one_gets_the_folder(daemons: Any) -> None:
    first = daemons.start("hive")
    first.process.kill()
    first.wait()
    second = daemons.start("hive")
    assert second.url
    assert second.token == first.token
    second.signal()
    ends_well(second)


def test_a_second_one_is_refused(daemons: Any) -> None:
    first = daemons.start("hive")
    second = daemons.start("hive")
    code, errors = second.wait()
    assert code == 1
    assert errors.splitlines()[0] == f"rbee: a hive is already running at {first.url} (pid {first.process.pid})"
    assert errors.count("\n") == 2
    assert second.announced[-1]["error"]["code"] == "ALREADY_RUNNING"


@pytest.mark.parametrize("role", ["hive", "queen"])
def test_a_port_in_use_is_one_clear_line(daemons: Any, role: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = daemons.start(role, "--port", str(port))
        code, errors = daemon.wait()
    assert code == 1
    first, hint = errors.splitlines()
    assert first.startswith(f"rbee: port {port} on 127.0.0.1 is taken by ")
    assert f"(pid {os.getpid()})" in first
    assert "--port" in hint
    assert daemon.announced[-1]["error"]["code"] == "PORT_IN_USE"


@pytest.mark.parametrize(
    ("role", "arguments", "environment", "words"),
    [
        ("hive", ["--port", "70000"], {}, "--port: a whole number from 0 to 65535 is expected"),
        ("queen", ["--port", "-1"], {}, "--port: a whole number from 0 to 65535 is expected"),
        ("hive", [], {"RBEE_WORKER_SLOTS": "many"}, "worker.slots: expected int, got str"),
        (
            "queen",
            ["--config", "/nowhere.toml"],
            {},
            "/nowhere.toml, which --config names, does not exist",
        ),
        ("hive", ["--host", "nowhere.invalid"], {}, "cannot listen on nowhere.invalid"),
        ("queen", [], {"RBEE_HOME": "here"}, "expected an absolute path"),
        ("hive", [], {"RBEE_HOME": "/dev/null/x"}, "the state folder /dev/null/x cannot be written"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    daemons: Any, role: str, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    code, errors = daemons.start(role, *arguments, **environment).wait()
    assert code == (2 if words.startswith("--port") else 1)
    first, *rest = errors.splitlines()
    assert first.startswith("rbee: ")
    assert words in first
    assert all(line.startswith("hint: ") for line in rest)


@pytest.mark.parametrize("role", ["hive", "queen"])
def test_a_spoilt_token_is_one_clear_line(daemons: Any, role: str) -> None:
    daemons.home.mkdir()
    (daemons.home / "token").write_text("")
    code, errors = daemons.start(role).wait()
    assert code == 1
    assert errors.startswith("rbee: the token file ")
    assert "Traceback" not in errors


def test_a_spoilt_registry_keeps_no_hive_from_starting(daemons: Any) -> None:
    daemons.home.mkdir()
    (daemons.home / "models.db").write_bytes(b"spoilt" * 1000)
    hive = daemons.start("hive")
    with hive.client() as client:
        assert client.get("/v1/workers/list").json() == {"workers": []}
    assert [line["level"] for line in hive.log() if "models.db is damaged" in line["message"]] == ["error"]
    assert (daemons.home / "models.db.damaged").read_bytes() == b"spoilt" * 1000
    hive.signal()
    ends_well(hive)


# Workers.


def wait_for(client: httpx.Client, state: str, number: int = 1) -> list[dict[str, Any]]:
    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get("/v1/workers/list").json()["workers"]
        return found

    wait_until(lambda: [row["state"] for row in rows()] == [state] * number)
    return rows()


@needs_engine
def test_the_life_of_a_worker(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"), RBEE_WORKER_SLOTS="3")
    with hive.client() as client:
        reply = client.post(SPAWN, json={"model": MODEL}).json()
        assert set(reply) == {"worker_id", "url", "state", "api_key"}
        assert reply["state"] == "loading"
        (row,) = wait_for(client, "idle")
        assert row["id"] == reply["worker_id"]
        assert row["url"] == reply["url"]
        assert (row["model_ref"], row["backend"], row["device"]) == (MODEL, "cpu", 0)
        assert (row["slots_total"], row["slots_available"]) == (3, 3)
        assert row["idle_since"] is not None
        worker = psutil.Process(row["pid"])
        for place in (" ".join(worker.cmdline()), str(worker.environ())):
            assert reply["api_key"] not in place
            assert hive.token not in place
        assert client.delete(f"/v1/workers/{row['id']}").status_code == 202
        wait_for(client, "", 0)
        assert has_ended(row["pid"])
        refused(client.delete(f"/v1/workers/{row['id']}"), 404)
    hive.signal()
    ends_well(hive)
    assert daemons.left() == []


@needs_engine
def test_workers_asked_for_at_once_are_all_started_apart(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    replies: list[dict[str, Any]] = []

    def spawn() -> None:
        with hive.client() as client:
            replies.append(client.post(SPAWN, json={"model_ref": MODEL}).json())

    threads = [threading.Thread(target=spawn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("worker_id", "url", "api_key"):
        assert len({reply[name] for reply in replies}) == 3
    with hive.client() as client:
        rows = wait_for(client, "idle", 3)
    hive.signal()
    ends_well(hive)
    assert all(has_ended(row["pid"]) for row in rows)
    assert daemons.left() == []
    with sqlite3.connect(hive.home / "models.db") as connection:
        assert connection.execute("SELECT count(*) FROM workers").fetchone() == (0,)
    connection.close()


@needs_engine
def test_callers_that_take_any_worker_share_the_one_that_starts(daemons: Any) -> None:
    """Unless it has not the room that one of them asks for, and another may have."""
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"), RBEE_WORKER_CONTEXT="64")
    wanted = {"model_ref": MODEL, "reuse": True}
    replies: list[dict[str, Any]] = []

    def spawn(body: dict[str, Any]) -> None:
        with hive.client() as client:
            replies.append(client.post(SPAWN, json=body).json())

    threads = [threading.Thread(target=spawn, args=(wanted | named,)) for named in ({}, {"backend": "cpu"}, {}) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with hive.client() as client:
        (row,) = wait_for(client, "idle")
        spawn(wanted)
        assert [reply["worker_id"] for reply in replies] == [row["id"]] * 7
        assert {(reply["url"], reply["api_key"]) for reply in replies} == {(row["url"], replies[0]["api_key"])}
        assert replies[-1]["state"] == "idle"
        assert len(client.get("/v1/workers/list").json()["workers"]) == 1
        assert row["context"] == 4 * 64
        for longest, workers in ((256, 1), (500, 2), (400, 2), (5000, 3), (5000, 3)):
            spawn(wanted | {"longest": longest})
            rows = wait_for(client, "idle", workers)
        assert sorted(row["context"] for row in rows) == [256, 512, 1024], "it was trained with 1024"
    hive.signal()
    ends_well(hive)


@needs_engine
def test_a_worker_that_crashes_is_forgotten_and_logged(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    with hive.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = wait_for(client, "idle")
        os.kill(row["pid"], signal.SIGSEGV)
        wait_for(client, "", 0)
        client.post(SPAWN, json={"model_ref": MODEL})
        wait_for(client, "idle")
    messages = [line["message"] for line in hive.log() if line["level"] == "error"]
    assert any(str(row["pid"]) in message and "SIGSEGV" in message for message in messages)
    hive.signal()
    ends_well(hive)


@needs_engine
@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ("exit", "SPAWN_FAILED", "exit code 7"),
        ("silent", "SPAWN_TIMEOUT", "0.5 s"),
        ("refuse", "VRAM_EXHAUSTED", "no room"),
    ],
)
def test_a_worker_that_does_not_start_is_answered(daemons: Any, behaviour: str, code: str, words: str) -> None:
    # Beside other programs it may take more than half a second until the stand-in has ended or refused.
    patience = "0.5" if behaviour == "silent" else "30"
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin(behaviour), RBEE_TIMEOUTS_WORKER_READY=patience)
    with hive.client() as client:
        error = client.post(SPAWN, json={"model_ref": MODEL}).json()["error"]
        assert error["code"] == code
        assert words in error["message"]
        assert error["details"]["log"].startswith("worker-")
        listed = client.get("/v1/workers/list").json()
        assert listed["workers"] == []
        (ended,) = listed["ended"]
        assert words in ended["reason"]
        assert ended["log"] == error["details"]["log"]
    assert daemons.left() == [psutil.Process(hive.process.pid)]
    hive.signal()
    ends_well(hive)


@needs_engine
def test_a_process_that_holds_the_pipe_of_an_ended_worker_is_not_waited_for(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("holder"))
    began = time.monotonic()
    with hive.client() as client:
        error = client.post(SPAWN, json={"model_ref": MODEL}).json()["error"]
    assert (error["code"], "exit code 7" in error["message"]) == ("SPAWN_FAILED", True)
    assert time.monotonic() - began < 4, "the pipe stays open for 5 s"
    hive.signal()
    ends_well(hive)


@needs_engine
def test_a_program_that_does_not_exist_is_answered(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND="/nowhere/worker")
    with hive.client() as client:
        assert client.post(SPAWN, json={"model_ref": MODEL}).json()["error"]["code"] == "SPAWN_FAILED"
        assert client.get("/v1/workers/list").json() == {"workers": []}


@needs_engine
def test_a_worker_that_will_not_end_is_killed(daemons: Any) -> None:
    hive = daemons.start(
        "hive", RBEE_WORKER_COMMAND=standin("stubborn"), RBEE_TIMEOUTS_UNLOAD="0.5", RBEE_TIMEOUTS_ACKNOWLEDGE="0.2"
    )
    with hive.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = wait_for(client, "idle")
    hive.signal()
    code, errors = hive.wait()
    assert code == 1
    said, hint = errors.splitlines()
    assert said == f"rbee: the worker (pid {row['pid']}) had not ended 0.5 s after it was told to, and was killed"
    assert hint == f"hint: their logs: {hive.home / 'logs' / 'worker-'}{row['id']}.log"
    assert has_ended(row["pid"])
    assert any("is killed" in line["message"] for line in hive.log())


@needs_engine
def test_a_loading_that_takes_too_long_ends_the_worker(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("loading"), RBEE_TIMEOUTS_LOADING="0.5")
    with hive.client() as client:
        assert client.post(SPAWN, json={"model_ref": MODEL}).json()["state"] == "loading"
        wait_for(client, "", 0)
    assert any("not loaded within 0.5 s: state loading, 3 of 8 layers" in line["message"] for line in hive.log())
    hive.signal()
    ends_well(hive)


@needs_engine
@pytest.mark.parametrize(("behaviour", "words"), [("fall", "SIGSEGV"), ("hungry", "SIGKILL")])
def test_a_worker_that_falls_while_it_loads_is_forgotten_with_the_reason(
    daemons: Any, behaviour: str, words: str
) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin(behaviour))
    with hive.client() as client:
        assert client.post(SPAWN, json={"model_ref": MODEL}).json()["state"] == "loading"
        wait_for(client, "", 0)
        (ended,) = client.get("/v1/workers/list").json()["ended"]
        assert words in ended["reason"]
    hive.signal()
    ends_well(hive)


@needs_engine
def test_a_worker_whose_caller_has_left_is_there_for_the_next_one(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("slow"))
    with hive.client() as client:
        with client.stream("POST", SPAWN, json={"model_ref": MODEL}, headers={"Accept": "text/event-stream"}) as events:
            for line in events.iter_lines():
                if '"action":"start"' in line:
                    break
        wait_for(client, "idle")
    assert [line for line in hive.log() if "traceback" in line] == []
    hive.signal()
    ends_well(hive)
    assert daemons.left() == []


@needs_engine
def test_a_killed_hives_workers_are_adopted_by_the_next(daemons: Any) -> None:
    first = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    with first.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = wait_for(client, "idle")
    first.process.kill()
    first.wait()
    assert not has_ended(row["pid"]), "a worker does not end with its hive"
    second = daemons.start("hive")
    with second.client() as client:
        (adopted,) = wait_for(client, "idle")
        for field in ("id", "url", "model_ref", "backend", "device", "pid", "slots_total", "slots_available"):
            assert adopted[field] == row[field]
        psutil.Process(row["pid"]).kill()
        wait_for(client, "", 0)
    second.signal()
    ends_well(second)
    assert daemons.left() == []


@needs_engine
def test_an_adopted_worker_ends_with_its_new_hive(daemons: Any) -> None:
    first = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    with first.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = wait_for(client, "idle")
    first.process.kill()
    first.wait()
    second = daemons.start("hive")
    second.signal()
    ends_well(second)
    assert has_ended(row["pid"])


@needs_engine
@pytest.mark.parametrize("behaviour", ["deaf", "impostor"])
def test_a_worker_that_fails_three_health_checks_is_removed(daemons: Any, behaviour: str) -> None:
    hive = daemons.start(
        "hive",
        RBEE_WORKER_COMMAND=standin(behaviour),
        RBEE_TIMEOUTS_HEALTH="0.3",
        RBEE_TIMEOUTS_HEALTH_INTERVAL="0.2",
    )
    with hive.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = client.get("/v1/workers/list").json()["workers"]
        wait_for(client, "", 0)
        assert has_ended(row["pid"])
    assert any("3 health checks" in line["message"] for line in hive.log() if line["level"] == "error")


@needs_engine
def test_a_healthy_worker_is_ended_when_it_was_idle_long_enough(daemons: Any) -> None:
    hive = daemons.start(
        "hive",
        RBEE_WORKER_COMMAND=standin("well"),
        RBEE_TIMEOUTS_HEALTH_INTERVAL="0.2",
        RBEE_TIMEOUTS_IDLE="1.5",
    )
    with hive.client() as client:
        client.post(SPAWN, json={"model_ref": MODEL})
        (row,) = wait_for(client, "idle")
        wait_until(
            lambda: client.get("/v1/workers/list").json()["workers"][0]["last_health_at"] > row["last_health_at"]
        )
        wait_for(client, "", 0)
        assert has_ended(row["pid"])
        assert client.get("/v1/health").status_code == 200
    assert not [line for line in hive.log() if line["level"] == "error"]


@needs_engine
def test_only_a_workers_own_key_calls_back_for_it(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well"))
    with hive.client() as client:
        one, other = (client.post(SPAWN, json={"model_ref": MODEL}).json() for _ in range(2))
        wait_for(client, "idle", 2)
        client.headers["Authorization"] = f"Bearer {one['api_key']}"
        body = CALLBACK | {"url": one["url"]}
        assert client.post(READY, json=body | {"worker_id": one["worker_id"]}).json() == {"acknowledged": True}
        assert refused(client.post(READY, json=body | {"worker_id": other["worker_id"]}), 401)
        for path in ("/v1/workers/list", "/v1/backends"):
            assert refused(client.get(path), 401)["code"] == "INVALID_API_KEY", "a worker's key opens nothing else"
    hive.signal()
    ends_well(hive)
