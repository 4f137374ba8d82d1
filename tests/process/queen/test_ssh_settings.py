"""Nodes that are names in ~/.ssh/config: what `ssh NAME` reaches is a node, and stays one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.kit.ports import hold_port
from tests.kit.remote_node import RemoteNode, infer, row, rows
from tests.kit.ssh_home import SshHome
from tests.kit.sshd import Sshd
from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "workstation", name="attic")
    found.stand_in()
    yield found
    found.close()


@pytest.fixture
def home(tmp_path: Path, node: RemoteNode) -> SshHome:
    """The user's, who has logged in to the node before."""
    made = SshHome(tmp_path / "user")
    made.know(node.sshd)
    shutil.copy(node.sshd.key, made.ssh / "id")
    return made


@pytest.fixture
def swarm(tmp_path: Path, home: SshHome) -> Iterator[Swarm]:
    found = Swarm(
        tmp_path / "home",
        HOME=str(home.path),
        SSH_AUTH_SOCK="",
        RBEE_TIMEOUTS_DRAIN="2",
        RBEE_TIMEOUTS_CASCADE="8",
    )
    found.start_queen()
    yield found
    found.kill()


def place(node: RemoteNode) -> str:
    return f"Host attic\n HostName {node.address}\n Port {node.sshd.port}\n"


def test_a_name_is_all_that_is_needed(swarm: Swarm, home: SshHome, node: RemoteNode, tmp_path: Path) -> None:
    home.configure(f"Match exec true\n User nobody\n{place(node)} User {node.sshd.user}\n")
    added = swarm.run(
        "setup", "add-node", "--name", "attic", "--ssh-host", "attic", "--install-path", str(node.install)
    )
    assert added.returncode == 0, added.stderr
    assert "line 1 is passed over: `Match exec` is not decided here" in added.stderr
    node.give_token(swarm.home)
    found = row(swarm)
    assert (found["ssh_host"], found["ssh_port"], found["ssh_user"]) == ("attic", node.sshd.port, node.sshd.user)
    assert found["ssh_settings"] == {
        "address": node.address,
        "has_port": True,
        "has_user": True,
        "is_proxied": False,
    }
    again = swarm.run("setup", "update-node", "--name", "attic")
    assert (again.returncode, "nothing has changed" in again.stderr) == (0, True), again.stderr
    assert "was changed" not in again.stderr

    # The settings change, and the node is behind another machine now: its own address may mean another one here.
    node.sshd.stop()
    node.sshd.port = hold_port(node.address)
    node.sshd.start()
    gate = Sshd(tmp_path / "gate", "127.0.0.3")
    try:
        home.know(node.sshd, gate)
        home.configure(
            f"{place(node)} ProxyJump gate\nHost gate\n HostName {gate.address}\n Port {gate.port}\n"
            f" IdentityFile {gate.key}\n"
        )
        done = infer(swarm, node)
        assert (done.returncode, len(done.stdout) > 1) == (0, True), done.stderr
        found = row(swarm)
        assert (found["ssh_port"], found["is_tunnelled"]) == (node.sshd.port, True)
        assert found["ssh_settings"]["is_proxied"]
        swarm.stop_queen()
    finally:
        gate.stop()


SAID = (
    ("{user}@{address}:{port}", (), None),
    ("ssh://{user}@{address}:{port}", (), None),
    ("{address}:{port}", ("--ssh-user", "{user}"), None),
    ("[{address}]:{port}", ("--ssh-port", "{port}"), None),
    ("attic", ("--ssh-user", "nobody"), "nobody was not let in"),
    ("attic", ("--ssh-port", "1"), "connection refused at port 1"),
    ("bee@{address}", ("--ssh-user", "{user}"), "--ssh-host says bee, and --ssh-user says {user}"),
    ("{address}:x", (), "has no port after the colon: 'x' is not a number"),
    ("attic", ("--ssh-key", "/nope"), "--ssh-key /nope does not exist"),
)


def test_what_is_said_on_the_command_line(swarm: Swarm, home: SshHome, node: RemoteNode) -> None:
    home.configure(place(node))
    values = {"user": node.sshd.user, "address": node.address, "port": node.sshd.port}
    for number, (host, options, words) in enumerate(SAID):
        name = f"node{number}"
        done = swarm.run(
            *("setup", "add-node", "--name", name, "--ssh-host", host.format(**values)),
            *(option.format(**values) for option in (*options, "--install-path", f"~/{name}")),
        )
        if words is None:
            assert done.returncode == 0, done.stderr
            (found,) = [each for each in rows(swarm) if each["node_name"] == name]
            assert (found["ssh_host"], found["ssh_port"]) == (node.address, node.sshd.port)
        else:
            assert done.returncode in (1, 2)
            assert words.format(**values) in done.stderr
