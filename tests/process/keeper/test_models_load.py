"""`rbee models load`: a model is loaded before anybody asks it, with the room and for the time that are wished for."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from tests.kit.command import run_rbee
from tests.kit.ports import hold_port

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_is_loaded_and_held(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "RBEE_HOME": str(tmp_path / "state"),
        "RBEE_QUEEN_PORT": str(hold_port()),
        "RBEE_HIVE_PORT": str(hold_port()),
        "RBEE_WORKER_CONTEXT": "64",
    }
    load = ("models", "load", "builtin:bee-stories")
    refused = run_rbee(*load, env=env)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no queen is running" in refused.stderr
    assert "hint: `rbee up` starts it" in refused.stderr
    run_rbee("up", env=env)
    try:
        done = run_rbee(*load, "--keep", "2h", "--context", "500", env=env)
        assert (done.returncode, done.stdout) == (0, "builtin:bee-stories is loaded on local.\n"), done.stderr
        again = json.loads(run_rbee(*load, "--json", env=env).stdout)
        (worker,) = json.loads(run_rbee("workers", "list", "--json", env=env).stdout)["workers"]
        assert (worker["worker_id"], worker["state"]) == (again["worker_id"], "idle")
        assert 7000 < worker["idle_until"] - time.time() <= 7200, "what is said without --keep changes nothing"
    finally:
        run_rbee("down", env=env)
