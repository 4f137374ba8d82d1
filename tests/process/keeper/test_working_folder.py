"""A working folder that was removed stands in nobody's way, unless a path is relative to it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GO = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); os.execv(sys.executable, sys.argv[1:])"
NEEDED = "rbee: the working folder does not exist any more, and a relative path needs it\nhint: cd to another folder"


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    own = {"HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", GO, sys.executable, "-m", "rbee", *arguments],
        cwd=home, env=os.environ | own | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "x", "status"],
        ["infer", "--prompt", "x", "--model", "./x.gguf"],
        ["models", "push", "x.gguf", "--node", "a"],
        ["install", "--system", "--prefix", "x"],
        ["queen", "--config", "x"],
        ["hive", "--config=x"],
    ],
)
def test_a_relative_path_is_refused_in_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    code, err = run(tmp_path, *arguments)
    assert code == 1
    assert err.startswith(NEEDED)
    assert err.count("\n") == 2


def test_what_needs_no_folder_works(tmp_path: Path) -> None:
    code, err = run(tmp_path, "status")
    assert (code, err.startswith("No queen is running.")) == (0, True), err
    assert run(tmp_path, "token") == (0, "")
    for role in ("queen", "hive"):
        code, err = run(tmp_path, role, "--port", "0", "--host", "nowhere.invalid")
        assert (code, err.startswith("rbee: cannot listen on nowhere.invalid")) == (1, True), err
    code, err = run(tmp_path, "status", RBEE_HOME="here")
    assert (code, err.startswith(NEEDED)) == (1, True), err
