"""The logs of real daemons: bounded, with the last breath of native code, and without a word of what users write."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trio

from rbee.adapters.daemon import announce, process
from rbee.adapters.logs import tail
from tests.conftest import ROOT
from tests.kit.local_http import LOCAL
from tests.kit.standins import standin
from tests.kit.waiting import wait_until

needs_engine = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine")

MODEL = "builtin:bee-stories"
SPAWN = "/v1/workers/spawn"
FAULT = "Fatal Python error: Segmentation fault"
OLD = "of an earlier day\n" * 600


def messages(log: Path) -> list[str]:
    """Return what our own lines of a log say."""
    return [json.loads(line)["message"] for line in log.read_text().splitlines() if line.startswith("{")]


def stderr_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/fd/2").readlink())


def logs_of_workers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "logs").glob("worker-*"))


# What a daemon leaves.


@pytest.mark.parametrize("role", ["queen", "hive"])
async def test_stderr_follows_the_log_and_a_fault_leaves_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    environment = {"PYTHONPATH": ROOT, "RBEE_HOME": tmp_path, f"RBEE_{role.upper()}_PORT": 0}
    for name, value in (environment | {"RBEE_LOGS_MAX_BYTES": 10_000}).items():
        monkeypatch.setenv(name, str(value))
    log = tmp_path / f"logs/{role}.log"
    log.parent.mkdir()
    log.write_text(OLD)
    child = await process.start([sys.executable, "-m", "rbee", role, "--announce"], log=log)
    try:
        with trio.fail_after(30):
            await announce.listen(child, lambda _: None)
        assert log.with_name(f"{role}.log.1").read_text() == OLD
        assert OLD not in log.read_text()
        assert stderr_of(child.pid) == str(log)
        child.send_signal(signal.SIGSEGV)
        with trio.fail_after(20):
            assert await child.wait() == -signal.SIGSEGV
    finally:
        child.kill()
        await child.wait()
    assert FAULT in log.read_text().splitlines()
    assert tail.last_lines(log, 3) == ["of an earlier day", *messages(log), FAULT][-3:]


@needs_engine
def test_a_worker_writes_its_own_log_and_a_fault_leaves_its_trace(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_LOGS_MAX_BYTES="10000")
    with hive.client() as client:
        worker_id = client.post(SPAWN, json={"model_ref": MODEL}).json()["worker_id"]
        log = hive.home / f"logs/worker-{worker_id}.log"
        (row,) = client.get("/v1/workers/list").json()["workers"]
        assert stderr_of(row["pid"]) == str(log)
        wait_until(lambda: any(message.startswith("loaded ") for message in messages(log)))
        assert {json.loads(line)["role"] for line in log.read_text().splitlines()} == {"llm-worker-rbee"}
        os.kill(row["pid"], signal.SIGSEGV)
        wait_until(lambda: client.get("/v1/workers/list").json()["workers"] == [])
        (ended,) = client.get("/v1/workers/list").json()["ended"]
    assert FAULT in log.read_text().splitlines()
    assert ended["last_lines"] == [*messages(log), FAULT][-20:]
    hive.signal()
    assert hive.wait()[0] == 0


ABORT = """
import faulthandler
from pathlib import Path
from rbee.adapters.logs import json_log
from rbee.worker.llama import library
faulthandler.enable(2, all_threads=False)
json_log.to_file("llm-worker-rbee", Path({log!r}), 10_000)
library.load().ggml.ggml_abort(b"/where/it/was/built.c", 7, b"GGML_ASSERT(%s) failed", b"\\x1b[31mn / 2")
"""


@needs_engine
def test_why_the_engine_gives_up_is_in_the_log_and_escaped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as stderr:
        done = subprocess.run([sys.executable, "-c", ABORT.format(log=str(log))], stderr=stderr, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "\x1b" not in log.read_text()
    assert "/where/it/was" not in log.read_text()
    assert messages(log) == ["built.c:7: GGML_ASSERT(\x1b[31mn / 2) failed"]
    assert tail.last_lines(log) == [r"built.c:7: GGML_ASSERT(\x1b[31mn / 2) failed", "Fatal Python error: Aborted"]


# How many logs there are.


@needs_engine
def test_the_logs_of_ended_workers_go_but_the_newest(daemons: Any) -> None:
    environment = {
        "RBEE_WORKER_COMMAND": standin("well"),
        "RBEE_LOGS_KEPT_WORKERS": "2",
    }
    folder = daemons.home / "logs"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"worker-{number}.log").write_text("x")
        os.utime(folder / f"worker-{number}.log", (number, number))
    hive = daemons.start("hive", **environment)
    assert logs_of_workers(daemons.home) == ["worker-3.log", "worker-4.log"]
    with hive.client() as client:
        ids = [client.post(SPAWN, json={"model_ref": MODEL}).json()["worker_id"] for _ in range(4)]
        first, *others = [f"worker-{worker_id}.log" for worker_id in ids]
        for worker_id in ids[1:]:
            client.delete(f"/v1/workers/{worker_id}")
        wait_until(lambda: len(client.get("/v1/workers/list").json()["workers"]) == 1)
        wait_until(lambda: len(logs_of_workers(daemons.home)) == 3)
    left = logs_of_workers(daemons.home)
    assert first in left, "it is the oldest, but its worker runs"
    assert set(left) <= {first, *others}
    hive.process.kill()
    hive.wait()
    hive = daemons.start("hive", **environment)
    assert logs_of_workers(daemons.home) == left
    hive.signal()
    assert hive.wait()[0] == 0


# What is in them.

MARKER = "xylophonist"
"""A word that the bundled model does not write by itself."""


def rbee(home: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "rbee", *arguments],
        env=environment,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        timeout=50,
        check=False,
    )


def files_with(home: Path, secret: str) -> list[str]:
    """Return the files under a state folder in which this stands."""
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    )


def ask_in_every_wrong_way(worker: httpx.Client) -> None:
    """Send a worker requests that hold the marker and fail, each for a reason of its own."""
    asked = {"prompt": MARKER, "max_tokens": 5}
    headers = {"Content-Type": "application/json"}
    for status, wrong in (
        (400, asked | {"max_tokens": 10**6}),
        (400, asked | {"temperature": MARKER}),
        (400, asked | {MARKER: 1}),
        (400, asked | {"request_id": MARKER}),
        (400, asked | {"stop": [MARKER, 7]}),
        (400, asked | {"prompt": f"{MARKER} " * 9000}),
        (400, asked | {"prompt": f"{MARKER}\0"}),
    ):
        assert worker.post("/v1/inference", json=wrong).status_code == status, wrong
    for content in (f'{{"prompt": "{MARKER}'.encode(), f'{{"prompt": "{MARKER}\xff"}}'.encode("latin-1")):
        assert worker.post("/v1/inference", content=content, headers=headers).status_code == 400
    assert worker.post("/v1/inference", json=asked, headers={"Authorization": f"Bearer {MARKER}"}).status_code == 401
    assert worker.post(f"/v1/{MARKER}?prompt={MARKER}", json=asked).status_code == 404
    assert worker.request("PUT", "/v1/inference", json=asked).status_code == 405


@needs_engine
def test_no_log_holds_what_a_user_wrote_or_a_key(daemons: Any) -> None:
    home = daemons.home
    queen = daemons.start("queen", "--debug")
    assert rbee(home, "infer", "--prompt", f"Once {MARKER}", "--stop", MARKER).returncode == 0
    assert rbee(home, "infer", stdin=f"{MARKER} ".encode() * 9000).returncode == 1
    assert rbee(home, "infer", stdin=f"{MARKER}\0".encode()).returncode == 1
    assert rbee(home, "infer", "--prompt", MARKER, "--max-tokens", "1000000").returncode == 0
    assert rbee(home, "infer", "--prompt", MARKER, "--model", "file:/nowhere.gguf").returncode == 1
    with queen.client() as client:
        task = {"prompt": MARKER, "max_tokens": 200, "request_id": str(uuid.uuid4())}
        placed = client.post("/v2/tasks", json=task).json()
        assert client.post("/v2/tasks", json=task | {MARKER: MARKER}).status_code == 400
        with client.stream(
            "POST", "/v2/tasks", json=task | {"relay": True}, headers={"Accept": "text/event-stream"}
        ) as stream:
            next(stream.iter_lines())
        key = {"Authorization": f"Bearer {placed['api_key']}"}
        with httpx.Client(base_url=placed["worker_url"], headers=key, timeout=30, **LOCAL) as worker:
            ask_in_every_wrong_way(worker)
            with worker.stream("POST", "/v1/inference", json=task) as stream:
                next(stream.iter_lines())
                assert worker.delete(f"/v1/inference/{task['request_id']}").status_code == 204
            with worker.stream("POST", "/v1/inference", json=task) as stream:
                next(stream.iter_lines())
                (pid,) = (p.pid for p in daemons.left() if placed["worker_id"] in p.cmdline())
                psutil.Process(pid).send_signal(signal.SIGSEGV)
        wait_until(lambda: client.get("/v2/workers/list").json()["workers"] == [])
    queen.signal()
    code, said = queen.wait()
    assert (code, said.count(MARKER)) == (0, 0)
    logs = [path.name for path in (home / "logs").iterdir()]
    assert {"queen.log", "hive.log"} < set(logs)
    assert len(logs) == 3, "one worker has served all of this"
    assert files_with(home, MARKER) == []
    assert files_with(home, placed["api_key"]) == []
    assert files_with(home, queen.token) == ["token"]
