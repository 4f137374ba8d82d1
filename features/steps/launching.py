"""Steps that run the program where it cannot, or hardly can, run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_bdd import given, parsers, then, when

from features.lab.machine import PROGRAM, find_python
from tests.kit import disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.seen import Seen

NOBODY = 65534


@when("rbee.pyz is run by each older Python that is here")
def _old_pythons(machine: Machine, seen: Seen) -> None:
    found = filter(None, (find_python(version) for version in ("2.7", "3.6", "3.8", "3.9", "3.10")))
    seen.of_old_pythons = []
    for machine.python in found:
        seen.of_old_pythons.append(machine.run("infer", "--prompt", "Hello"))
    if not seen.of_old_pythons:
        pytest.skip("there is no older Python here")


@then("each says in one line which Pythons it needs, and fails")
def _says_versions(seen: Seen) -> None:
    for done in seen.of_old_pythons:
        assert done.returncode == 1
        assert done.stdout == b""
        (line,) = done.stderr.decode().splitlines()
        assert "3.11 to 3.14" in line


@given("a home folder that belongs to someone else")
def _foreign_home(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run a program as another user")
    machine.home.chmod(0o755)
    del machine.env["RBEE_CACHE"]


@when("another user runs rbee.pyz there")
def _as_another_user(machine: Machine, tmp_path: Path, seen: Seen) -> None:
    seen.done = run_as_nobody(machine, tmp_path, "infer", "--prompt", "Hello")


def run_as_nobody(machine: Machine, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the program as a user who may do nothing special; only root can."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder) != "/":
            folder.chmod(folder.stat().st_mode | 0o055)
    program = shutil.copy(PROGRAM, tmp_path)
    return subprocess.run(
        [_python_of_nobody(), program, *arguments],
        env=machine.env,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        capture_output=True,
        check=False,
    )


def _python_of_nobody() -> str:
    """Return an interpreter that others may run, as one is not that pyenv has put into a home folder."""
    for python in ("/usr/bin/python3", str(Path(sys.base_prefix) / "bin" / "python3")):
        asked = [python, "-c", "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))"]
        with suppress(OSError):
            if subprocess.run(asked, cwd="/", env={}, user=NOBODY, group=NOBODY, check=False).returncode == 0:
                return python
    pytest.skip("there is no Python here that another user may run, and that rbee supports")


def _mount(folder: Path, options: str) -> None:
    folder.mkdir()
    disk.mount(folder, options)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that other steps mount a file system on."""
    folder = tmp_path / "disk"
    yield folder
    if folder.exists():
        disk.unmount(folder)


@given("a cache folder on a disk of 1 MB")
def _full_disk(machine: Machine, small_disk: Path) -> None:
    _mount(small_disk, "size=1m")
    machine.env["RBEE_CACHE"] = str(small_disk)


@when("there is room on that disk")
def _room(small_disk: Path) -> None:
    disk.remount(small_disk, "size=300m")


@when("that disk is full again")
def _full_again(small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    assert os.statvfs(small_disk).f_bavail == 0


@given("a cache folder on a disk without execution")
def _noexec_disk(machine: Machine, small_disk: Path) -> None:
    _mount(small_disk, "noexec")
    machine.env["RBEE_CACHE"] = str(small_disk)


@then(parsers.parse("it says in one line {what}, and how to choose another folder"))
def _says_where(machine: Machine, seen: Seen, what: str) -> None:
    done = seen.done
    assert done.returncode == 1
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert "RBEE_CACHE" in line
    assert ("noexec" in line) == (what == "that nothing may be executed there")
    assert machine.processes() == {}


@when("the file is linked as queen-rbee elsewhere and asked for help")
def _linked(machine: Machine, seen: Seen) -> None:
    link = machine.home / "queen-rbee"
    link.symlink_to(PROGRAM)
    seen.done = subprocess.run(
        [machine.python, str(link), "--help"], env=machine.env, cwd="/", capture_output=True, check=False
    )


@then("it answers as the queen")
def _as_queen(seen: Seen) -> None:
    assert seen.done.returncode == 0
    assert b"usage: rbee queen" in seen.done.stdout
