"""The Pythons of another machine: found where people have them, and asked what the launcher asks."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.target import Target
from rbee.queen.hives.remote.probe import Machine, probe
from tests.kit.paths import ROOT
from tests.kit.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = (
    "miniconda3/bin/python3",
    "anaconda3/envs/work/bin/python3",
    "miniforge3/bin/python3",
    "micromamba/envs/work/bin/python3",
    ".local/bin/python3.13",
    ".local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3",
    ".pyenv/versions/3.13.0/bin/python3",
    ".asdf/installs/python/3.13.0/bin/python3",
    ".local/share/mise/installs/python/3.13.0/bin/python3",
    ".rye/py/cpython@3.13.0/bin/python3",
    ".nix-profile/bin/python3",
)
PATH = "/nowhere:/usr/bin:/bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("node")
    found = Sshd(folder, "127.0.0.2", SetEnv=f'"HOME={folder}/home" "PATH={PATH}"')
    yield found
    found.stop()


@pytest.fixture
def home(server: Sshd, tmp_path: Path) -> Iterator[Path]:
    """The home folder there, empty before and after."""
    yield server.home
    server.home.rename(tmp_path / "gone")
    server.home.mkdir()


def make_python(path: Path, before: str = "") -> Path:
    """Make a Python of the newest version that fits, of which `before` is true; it says that it is itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = f"import os, sys; sys.version_info = (3, 14, 9); sys._base_executable = {str(path)!r}; {before}"
    run = f"{begin}\nexec(sys.argv[1])"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(run)} "$2"\n')
    path.chmod(0o755)
    return path


async def asked(server: Sshd, **options: str) -> Machine:
    target = Target(server.address, server.port, server.user, str(server.key), server.public_key)
    async with handshake.connect(target, own_known_hosts=Path("/nonexistent/known")) as connection:
        return await probe(connection, **options)


async def test_where_people_have_theirs(server: Sshd, home: Path) -> None:
    for place in PLACES:
        make_python(home / place)
    found = {python.path for python in (await asked(server)).pythons}
    assert {str(home / place) for place in PLACES} - found == set()


MISFITS = {
    "free-threaded": "sys.abiflags = 't'",
    "32 bits": "sys.maxsize = 2**31 - 1",
    "without glibc": "os.confstr = lambda name: None",
    "without ssl": "sys.modules['ssl'] = None",
    "3.15.0": "sys.version_info = (3, 15, 0)",
    "3.10.1": "sys.version_info = (3, 10, 1)",
    "pypy": "sys.implementation.name = 'pypy'",
}


async def test_one_that_does_not_fit_is_passed_over(server: Sshd, home: Path) -> None:
    for number, before in enumerate(MISFITS.values()):
        make_python(home / f".pyenv/versions/{number}/bin/python3", before)
    fits = make_python(home / ".local/bin/python3.11", "sys.version_info = (3, 11, 1)")
    machine = await asked(server)
    named = [str(python) for python in machine.pythons if str(home) in python.path]
    for words in MISFITS:
        assert any(words in name for name in named), (words, named)
    chosen = machine.python()
    assert chosen is not None
    assert chosen.path in (str(fits), "/usr/bin/python3") or "/usr/bin/python3" in chosen.path
    assert not any(python.fits and python.version == (3, 14, 9) for python in machine.pythons)


@pytest.mark.parametrize("misfit", ["free-threaded", "32 bits", "3.15.0", "3.10.1", "pypy"])
def test_the_launcher_finds_the_same(tmp_path: Path, misfit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "launcher.py"
    text = (ROOT / "build" / "launcher" / "__main__.py").read_text()
    file.write_text(text.replace("@ARCHIVE_SIZE@", "0").replace("@GLIBC@", "2.28"))
    launcher = runpy.run_path(str(file))
    assert launcher["find_misfit"]() is None
    name, value = {
        "free-threaded": ("abiflags", "t"),
        "32 bits": ("maxsize", 2**31 - 1),
        "3.15.0": ("version_info", (3, 15, 0)),
        "3.10.1": ("version_info", (3, 10, 1)),
        "pypy": ("implementation", type("Implementation", (), {"name": "pypy"})()),
    }[misfit]
    monkeypatch.setattr(sys, name, value)
    assert launcher["find_misfit"]() is not None


async def test_the_python_that_is_named(server: Sshd, home: Path) -> None:
    make_python(home / "newest/bin/python3")
    named = make_python(home / "my pythons/bin/python3", "sys.version_info = (3, 12, 1)")
    for path in (str(named), "~/my pythons/bin/python3", "~/my pythons", str(home / "my pythons")):
        machine = await asked(server, python=path)
        assert [python.path for python in machine.pythons] == [str(named)]
    assert (await asked(server, python="~/none")).pythons == []
    assert (await asked(server, python="/bin/false")).pythons == []


async def test_the_one_that_was_named_is_taken_again(server: Sshd, home: Path) -> None:
    make_python(home / ".local/bin/python3.14")
    kept = make_python(home / "mine/python3", "sys.version_info = (3, 11, 1)")
    (home / "node").mkdir()
    (home / "node" / ".python").write_text(f"{kept}\n")
    found = (await asked(server, install=str(home / "node"))).python()
    assert found is not None
    assert found.path == str(kept)
    kept.unlink()
    found = (await asked(server, install=str(home / "node"))).python()
    assert found is not None
    assert found.path == str(home / ".local/bin/python3.14")
