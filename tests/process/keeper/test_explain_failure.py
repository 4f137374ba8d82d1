"""Why a worker ended, as the user is told: in the error of the command that it broke, and in `workers list`."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.models import make
from tests.kit.standins import standin

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

ROOT = Path(__file__).resolve().parents[3]


def keeper(queen: Any, *arguments: str) -> subprocess.Popen[str]:
    port = queen.url.rpartition(":")[2]
    return subprocess.Popen(
        [sys.executable, "-m", "rbee", *arguments],
        cwd=ROOT,
        env=os.environ | {"RBEE_HOME": str(queen.home), "RBEE_QUEEN_PORT": port, "RBEE_HIVE_PORT": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(queen: Any) -> dict[str, Any]:
    with queen.client() as client:
        found: dict[str, Any] = client.get("/v2/workers/list").json()
    return found


def pid_of(queen: Any, worker_id: str) -> int:
    with queen.client() as client:
        url = json.loads((queen.home / "hive.lock").read_bytes())["url"]
        rows = client.get(f"{url}/v1/workers/list").json()["workers"]
    return next(row["pid"] for row in rows if row["id"] == worker_id)


def test_a_worker_that_crashes_in_mid_stream(daemons: Any, tmp_path: Path) -> None:
    model = make(tmp_path / "letters.gguf", width=1024, context=4096)
    queen = daemons.start("queen")
    running = keeper(
        queen, "infer", "--model", f"file:{model}", "--prompt", "A", "--max-tokens", "4000", "--temperature", "0"
    )
    assert running.stdout is not None
    # Not `read`, which may take more into its buffer than `communicate` gives back.
    assert os.read(running.stdout.fileno(), 1) == b"B"
    (worker,) = workers(queen)["workers"]
    pid = pid_of(queen, worker["worker_id"])
    assert select.select([running.stdout], [], [], 20)[0], "more comes"
    os.kill(pid, signal.SIGSEGV)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 1
    assert out.startswith("C"), "what came until then is there"
    log = queen.home / "logs" / f"worker-{worker['worker_id']}.log"
    assert "rbee: the stream closed unexpectedly" in err
    assert f"the worker (pid {pid}) ended: SIGSEGV (a memory fault in native code)" in err
    assert f"its log: {log}" in err
    assert "the end of its log:\n" in err
    assert "loading letters.gguf" in err

    listed = keeper(queen, "workers", "list")
    out, err = listed.communicate(timeout=30)
    assert listed.returncode == 0
    assert err == "No workers are running.\n"
    assert f"(pid {pid}) with file:{model} on local ended: SIGSEGV (a memory fault in native code)" in out
    assert f"its log is {log}\nthe end of its log:\n" in out
    as_json = keeper(queen, "workers", "list", "--json")
    data = json.loads(as_json.communicate(timeout=30)[0])
    assert data["workers"] == []
    assert [ended["worker_id"] for ended in data["ended"]] == [worker["worker_id"]]
    queen.signal()
    assert queen.wait(60)[0] == 0


def test_a_worker_that_cannot_start(daemons: Any) -> None:
    script = "import sys; sys.stderr.write('no such device\\x1b[31m\\n'); sys.exit(9)"
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=shlex.join([sys.executable, "-c", script]))
    running = keeper(queen, "infer", "--prompt", "A")
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (1, "")
    assert "rbee: node local: the worker ended before it was ready: exit code 9\n" in err
    assert "the end of its log:\n  no such device" in err
    assert "\x1b" not in err
    assert f"its log is {queen.home / 'logs' / 'worker-'}" in err
    queen.signal()
    assert queen.wait(60)[0] == 0


def relayed(queen: Any) -> dict[str, Any]:
    """Return the error with which a task ends whose answer the queen passes on."""
    with queen.client() as client:
        text = client.post("/v2/tasks", json={"prompt": "A", "relay": True}).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    found: dict[str, Any] = json.loads(events[-2])["error"]
    return found


def test_a_model_that_its_hive_does_not_let_load_any_longer(daemons: Any) -> None:
    """Keepers count for themselves, but one that came later has a later end.

    It has 5 s for that: where the processors are busy, Python needs two to start.
    """
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("loading"), RBEE_TIMEOUTS_LOADING="5")
    running = keeper(queen, "infer", "--prompt", "A")
    error = relayed(queen)
    out, err = running.communicate(timeout=30)
    words = "the model was not loaded within 5 s: state loading, 3 of 8 layers"
    assert (running.returncode, out) == (1, "")
    assert f"rbee: {words}\n" in err
    assert f"hint: look at the worker's log: {queen.home / 'logs' / error['details']['log']}" in err
    assert (error["code"], error["message"]) == ("LOADING_TIMEOUT", words)
    queen.signal()
    assert queen.wait(60)[0] == 0


def test_a_worker_that_crashes_while_it_loads_is_told_to_who_has_its_answer_relayed(daemons: Any) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("fall"))
    error = relayed(queen)
    assert error["code"] == "WORKER_FAILED"
    assert error["message"].startswith("the worker ended while it loaded its model: SIGSEGV (a memory fault in native")
    assert error["details"]["pid"] > 0
    assert error["details"]["log"].startswith("worker-")
    queen.signal()
    assert queen.wait(60)[0] == 0
