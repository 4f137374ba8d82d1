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


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("install", "set HOME to the folder below which it is installed; `rbee install --system` is for all users"),
        (
            "uninstall",
            "set HOME to the folder below which it was installed; `rbee uninstall --system` is for all users",
        ),
        ("setup add-node --name a --ssh-host b --ssh-key ~/k", "set HOME, or write the whole path in place of ~/k"),
        ("status --config ~/x.toml", "set HOME, or write the whole path in place of ~/x.toml"),
        ("models show ~/x.gguf", "set HOME, or write the whole path in place of ~/x.gguf"),
        ("infer --prompt x --model file:~/x.gguf", "set HOME, or write the whole path in place of ~/x.gguf"),
        ("status", "set HOME; or RBEE_CACHE for rbee's program and RBEE_HOME for its state"),
    ],
)
def test_a_hint_says_what_helps_and_not_what_was_done(tmp_path: Path, command: str, hint: str) -> None:
    """Other folders for state and cache are of no use to who installs, or who has written a path."""
    elsewhere = {"RBEE_HOME": str(tmp_path / "state"), "RBEE_CACHE": str(tmp_path / "cache")}
    done = run(tmp_path, *command.split(), **({} if command == "status" else elsewhere))
    assert done.returncode == 1
    assert f"hint: {hint}" in done.stderr


def test_what_is_for_all_users_is_removed_without_a_home(tmp_path: Path) -> None:
    done = run(tmp_path, "uninstall", "--system", "--prefix", str(tmp_path / "prefix"))
    assert (done.returncode, done.stderr[:34]) == (0, "Nothing of rbee is installed in /tm"[:34]), done.stderr
