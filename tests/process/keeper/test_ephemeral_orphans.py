"""Whatever dies under a command that started everything for itself: nothing is left when that command has ended."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="real workers need the engine")

MODEL = "builtin:bee-stories"


def role(processes: list[psutil.Process], name: str) -> list[psutil.Process]:
    """Return the processes that play a role."""
    found = []
    for process in processes:
        try:
            if name in process.cmdline()[1:4]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_killed_hive_that_was_ephemeral_takes_its_workers_along(daemons: Any) -> None:
    hive = daemons.start("hive", "--ephemeral")
    with hive.client() as client:
        assert client.post("/v1/workers/spawn", json={"model_ref": MODEL}).status_code == 200
    assert len(daemons.left()) == 2
    hive.process.kill()
    hive.process.wait()
    wait_until(lambda: daemons.left() == [])


def test_a_worker_of_a_hive_that_stays_outlives_its_death(daemons: Any) -> None:
    hive = daemons.start("hive")
    with hive.client() as client:
        assert client.post("/v1/workers/spawn", json={"model_ref": MODEL}).status_code == 200
        (worker,) = role(daemons.left(), "worker")
        hive.process.kill()
        hive.process.wait()
    with pytest.raises(psutil.TimeoutExpired):
        worker.wait(1)


@pytest.mark.parametrize("victim", ["queen", "hive", "worker"])
def test_whatever_is_killed_under_a_command_it_ends_and_leaves_nothing(daemons: Any, victim: str) -> None:
    environment = os.environ | {"RBEE_HOME": str(daemons.home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"}
    command = subprocess.Popen(
        [sys.executable, "-m", "rbee", "infer", "--prompt", "Once upon a time", "--max-tokens", "400"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with command:
        wait_until(lambda: bool(role(daemons.left(), "worker")))
        for process in role(daemons.left(), victim):
            process.send_signal(signal.SIGKILL)
        _, errors = command.communicate(timeout=30)
    # The text may have been complete before the kill.
    assert command.returncode in (0, 1)
    assert b"Traceback" not in errors
    if victim == "queen":
        assert [process.pid for process in daemons.left()] == []
    else:
        wait_until(lambda: daemons.left() == [], seconds=3)
