"""Where another swarm's queen or hive has the port: whose it is, what can be done, and no token that opens nothing."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.daemon import instance, port_owner
from tests.kit.command import run_rbee
from tests.kit.ports import hold_port
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Daemon, Daemons


@pytest.fixture
def queen(daemons: Daemons) -> Daemon:
    """The queen of another swarm."""
    return daemons.start("queen", RBEE_QUEEN_PORT=str(hold_port()))


@pytest.fixture
def run(queen: Daemon, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command with a state folder of its own, and the other queen's port."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"RBEE_HOME": str(tmp_path / "own"), "RBEE_QUEEN_PORT": queen.url.rpartition(":")[2]}
        return run_rbee(*arguments, env=os.environ | own | environment)

    return run


def test_up_says_whose_queen_it_is_and_starts_none(
    run: Callable[..., subprocess.CompletedProcess[str]], queen: Daemon, tmp_path: Path
) -> None:
    for has_token in (False, True):
        if has_token:
            (tmp_path / "own").mkdir()
            (tmp_path / "own" / "token").write_text("rbee_another\n")
        done = run("up")
        first, second = done.stderr.splitlines()
        assert done.returncode == 1
        assert first.startswith(f"rbee: the queen at {queen.url} is that of another swarm (user ")
        assert f"pid {queen.process.pid}, RBEE_HOME={queen.home}); none was started" in first
        assert "RBEE_QUEEN_PORT" in second
        assert "RBEE_HIVE_PORT" in second
    assert instance.find(tmp_path / "own", "queen") is None


def test_no_token_is_made_that_the_queen_would_not_take(
    run: Callable[..., subprocess.CompletedProcess[str]], queen: Daemon, tmp_path: Path
) -> None:
    done = run("token")
    assert (done.returncode, done.stdout) == (1, "")
    assert "none was made" in done.stderr
    assert f"pid {queen.process.pid}" in done.stderr
    assert not (tmp_path / "own" / "token").exists()
    done = run("infer", "--prompt", "x")
    assert done.returncode == 1
    assert f"RBEE_HOME={queen.home}) needs a token" in done.stderr
    assert "RBEE_HIVE_PORT" in done.stderr
    # With another port, or once the port is free, it is made as before.
    assert run("token", RBEE_QUEEN_PORT=str(hold_port())).stdout.startswith("rbee_")


@pytest.mark.parametrize("role", ["queen", "hive"])
def test_a_daemon_that_finds_its_port_taken_makes_no_token(daemons: Daemons, tmp_path: Path, role: str) -> None:
    port = str(hold_port())
    first = daemons.start(role, "--port", port)
    second = daemons.start(role, "--port", port, home=tmp_path / "own")
    code, errors = second.wait()
    assert code == 1
    assert f"port {port} on 127.0.0.1 is taken by python" in errors
    assert f"(pid {first.process.pid})" in errors
    assert not (tmp_path / "own" / "token").exists()


def test_a_token_that_is_gone_while_its_queen_runs_is_not_made_anew(
    run: Callable[..., subprocess.CompletedProcess[str]], queen: Daemon
) -> None:
    token = queen.home / "token"
    text = token.read_text()
    token.unlink()
    done = run("token", RBEE_HOME=str(queen.home))
    assert done.returncode == 1
    assert "which holds its token, is gone" in done.stderr
    assert not token.exists()
    token.write_text(text)
    assert run("token", RBEE_HOME=str(queen.home)).stdout == text


def test_the_queen_of_a_folder_that_was_copied_is_not_that_of_the_copy(
    run: Callable[..., subprocess.CompletedProcess[str]], queen: Daemon, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(queen.home, copy)
    assert instance.find(queen.home, "queen") is not None
    assert instance.find(copy, "queen") is None
    done = run("down", RBEE_HOME=str(copy))
    assert done.returncode == 0
    assert "is left alone" in done.stderr
    assert queen.process.poll() is None


def test_a_folder_that_was_moved_keeps_its_queen(
    run: Callable[..., subprocess.CompletedProcess[str]], queen: Daemon, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    queen.home.rename(moved)
    assert run("up", RBEE_HOME=str(moved), RBEE_HIVE_PORT="0").stderr == f"A queen is already running at {queen.url}.\n"
    assert run("down", RBEE_HOME=str(moved)).returncode == 0
    assert queen.process.wait(PATIENCE) == 0


def test_whose_a_port_is(queen: Daemon) -> None:
    port = int(queen.url.rpartition(":")[2])
    owner = port_owner.find("127.0.0.1", port)
    assert owner is not None
    assert owner.is_ours
    assert (owner.pid, owner.state) == (queen.process.pid, f"RBEE_HOME={queen.home}")
    assert str(owner) == f"user {owner.user}, pid {owner.pid}, {owner.state}"
    assert port_owner.find("127.0.0.1", hold_port()) is None, "it is bound, and nobody listens"
    assert port_owner.find("127.0.0.9", port) is None, "that one listens at another address"
    for address in ("127.0.0.9", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, port), family=family):
            other = port_owner.find(address, port)
            assert other is not None
            assert other.pid == os.getpid()
            assert port_owner.find("127.0.0.1", port) == owner


def test_of_a_program_of_another_user_only_the_user_is_seen() -> None:
    owner = port_owner.PortOwner(None, None, "another", None)
    assert str(owner) == "user another"
    assert not owner.is_ours


@pytest.mark.parametrize("name", ["ssh", "autossh", "haproxy", "docker-proxy", "socat", "nginx", "caddy", "traefik"])
def test_the_program_of_a_tunnel_is_not_taken_for_the_queen(name: str) -> None:
    """Its pid and folder are not the queen's."""
    assert str(port_owner.PortOwner(7, name, "bee", "HOME=/home/bee")) == f"through {name}, user bee, pid 7"
    for own in ("python3.12", "rbee", "queen-rbee", "rbee-python", "bees", None):
        assert str(port_owner.PortOwner(7, own, "bee", "HOME=/home/bee")) == "user bee, pid 7, HOME=/home/bee"


def test_whose_the_hive_is_that_has_the_port(
    run: Callable[..., subprocess.CompletedProcess[str]], daemons: Daemons, tmp_path: Path
) -> None:
    port = str(hold_port())
    hive = daemons.start("hive", RBEE_HIVE_PORT=port, home=tmp_path / "theirs")
    done = run("infer", "--prompt", "x", RBEE_QUEEN_PORT=str(hold_port()), RBEE_HIVE_PORT=port)
    assert done.returncode == 1
    assert f"pid {hive.process.pid}, RBEE_HOME={tmp_path / 'theirs'}) does not accept the queen's token" in done.stderr
    assert "RBEE_HIVE_PORT" in done.stderr
