"""The steps that set up a checkout: what they leave when they are cut short, and what they say meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = Path(__file__).parents[2] / "build"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a function that imports a script of the build."""
    monkeypatch.syspath_prepend(str(BUILD))
    known = set(sys.modules)
    yield __import__
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BUILD)):
            del sys.modules[name]


def test_what_a_killed_build_has_left_is_removed_by_the_next(build: Any, tmp_path: Path) -> None:
    """Of any version: the killed one may never be built again."""
    for key in ("0.3.36-aaaa", "0.3.36-bbbb", "0.4.0-cccc", "zipapp"):
        (tmp_path / f".{key}.lock").touch()
        (tmp_path / f".{key}-x1y2" / "work").mkdir(parents=True)
        (tmp_path / key).mkdir()
    with (tmp_path / ".0.3.36-bbbb.lock").open() as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        build("cache").remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "0.3.36-aaaa",
        "0.3.36-bbbb",
        ".0.3.36-bbbb-x1y2",
        "0.4.0-cccc",
        "zipapp",
    }


def test_an_engine_that_no_checkout_uses_any_more_is_removed_and_named(
    build: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, days in (("used", 90), ("young", 29), ("old", 31)):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.log").touch()
        then = time.time() - days * 86400
        os.utime(tmp_path / name, (then, then))
    build("cache").remove_unused(tmp_path, tmp_path / "used")
    assert {path.name for path in tmp_path.iterdir()} == {"used", "used.log", "young", "young.log"}
    assert f"removed {tmp_path / 'old'}" in capsys.readouterr().err
    assert (tmp_path / "used").stat().st_mtime > time.time() - 86400, "it counts as used from now on"


PROGRAM = """
import sys, tempfile, time
from pathlib import Path
from progress import exit_code
def work():
    with tempfile.TemporaryDirectory(prefix=".key-", dir=sys.argv[1]) as scratch:
        Path(scratch, "half").write_text("done")
        print("ready", flush=True)
        time.sleep(60)
sys.exit(exit_code(work))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_told_to_end_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=BUILD, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors.strip()) == (130, "rbee: stopped; nothing half-done is kept")
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_too_it_is_said_how_long_the_rest_takes(
    build: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, clock = build("progress"), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[-1])
    with progress.Progress("building") as found:
        for done in (1, 10, 11, 50, 90, 100):
            clock.append(6.0 * done)
            found.step(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "building …",
        "building: step 1 of 100",
        "building: step 10 of 100, about 9 min left",
        "building: step 50 of 100, about 5 min left",
        "building: step 90 of 100, about 60 s left",
        "building: step 100 of 100",
    ]
