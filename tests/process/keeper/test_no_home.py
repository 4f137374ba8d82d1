"""`env -i`, and a user without HOME and without an entry in passwd: rbee goes on, or says in one sentence why not."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.kit.command import run_rbee
from tests.kit.ports import hold_port, worker_ports

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

NOBODY = """
import pwd
def fail(_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = fail
"""


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment alone, in a folder of its own."""
    site, cwd = tmp_path / "site", tmp_path / "cwd"
    site.mkdir(exist_ok=True)
    cwd.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(NOBODY)
    return run_rbee(*arguments, env={"PYTHONPATH": f"{site}:{ROOT}"} | environment, cwd=cwd)


@pytest.mark.parametrize("command", [["status"], ["token"], ["infer", "--prompt", "x"], ["install"], ["up"]])
def test_without_any_home_one_sentence_says_so(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("rbee: there is no home folder for ~")
    assert second.startswith("hint: set HOME")
    assert not list((tmp_path / "cwd").iterdir()), "and no folder is called ~"


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")
def test_with_a_folder_for_the_state_everything_goes_on(tmp_path: Path) -> None:
    ports = {
        "RBEE_QUEEN_PORT": str(hold_port()),
        "RBEE_HIVE_PORT": str(hold_port()),
        "RBEE_WORKER_PORT_FROM": str(worker_ports()),
    }
    state = {"RBEE_HOME": str(tmp_path / "state"), **ports}
    done = run(tmp_path, "infer", "--prompt", "The bees", "--max-tokens", "3", "--quiet", **state)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert not list((tmp_path / "cwd").iterdir())
