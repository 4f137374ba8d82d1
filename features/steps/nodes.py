"""Steps that register other machines, and ask for what is known of them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from pytest_bdd import given, parsers, then, when

from features.lab.terminal import run_on_terminal
from tests.kit.proxy import Proxy
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.node import Node, Nodes
    from features.lab.seen import Seen

NAME = "workstation"


@pytest.fixture
def way() -> Iterator[dict[str, Proxy]]:
    """The proxy between queen and sshd, once a step has put one there."""
    made: dict[str, Proxy] = {}
    yield made
    for proxy in made.values():
        proxy.close()


@given(parsers.parse("a machine called {name}"))
def _machine(nodes: Nodes, name: str) -> None:
    nodes.add(name)


@given(parsers.parse("the registered node {name}"))
def _registered(machine: Machine, nodes: Nodes, name: str) -> None:
    nodes.add(name).register(machine)


@given("a machine whose sshd listens at port 22")
def _at_22(nodes: Nodes) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may listen there")
    sshd = nodes.add(NAME).sshd
    sshd.stop()
    sshd.port = 22
    sshd.start()


@given("a queen runs, and what is sent to it is watched")
def _watched(machine: Machine, way: dict[str, Proxy]) -> None:
    machine.start_queen()
    way["queen"] = Proxy(("127.0.0.1", machine.queen_port))
    machine.env["RBEE_QUEEN_PORT"] = str(way["queen"].port)


@given("rbee is installed there")
def _installed(machine: Machine, nodes: Nodes) -> None:
    nodes[NAME].bring_rbee(machine)


def by_way_of(node: Node, way: dict[str, Proxy]) -> Proxy:
    """Put a proxy between the queen and the node's sshd; it keeps the address, and takes another port."""
    proxy = way["ssh"] = Proxy((node.address, node.sshd.port), host=node.address)
    node.sshd.port = proxy.port
    return proxy


@given("what is sent there gets lost on the way")
def _lost(machine: Machine, nodes: Nodes, way: dict[str, Proxy]) -> None:
    by_way_of(nodes[NAME], way).order("black hole")
    machine.env["RBEE_TIMEOUTS_SSH_CONNECT"] = "1"


@given("the way there is slow")
def _slow(machine: Machine, nodes: Nodes, way: dict[str, Proxy]) -> None:
    proxy = by_way_of(nodes[NAME], way)
    proxy.delay = 0.005
    accept = ("--accept-host-key", nodes[NAME].sshd.fingerprint)
    done = machine.run("setup", "update-node", "--name", NAME, "--ssh-port", str(proxy.port), *accept)
    assert done.returncode == 0, done.stderr.decode()


@given("sshd does not run there")
def _no_sshd(nodes: Nodes) -> None:
    nodes[NAME].sshd.stop()


@given("the user's key is not known there")
def _unknown_key(nodes: Nodes) -> None:
    nodes[NAME].sshd.key.with_suffix(".pub").write_text("")


@given("its login shell ends at once")
def _no_shell(nodes: Nodes) -> None:
    nodes[NAME].sshd.restart(ForceCommand="true")


@given("its host key is another")
def _other_host_key(nodes: Nodes) -> None:
    sshd = nodes[NAME].sshd
    sshd.stop()
    sshd.new_host_key()
    sshd.start()


def _register(nodes: Nodes, *options: str) -> list[str]:
    return ["setup", "add-node", "--name", NAME, *nodes[NAME].description, *options]


@when("the user registers it")
def _add(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    accept = ("--accept-host-key", nodes[NAME].sshd.fingerprint)
    seen.done = machine.run(*_register(nodes, *accept))


@when("the user registers it with a repository, a branch and an install path in the home folder")
def _add_all(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    more = ("--git-repo", "https://example.com/rbee.git", "--git-branch", "next", "--install-path", "~/swarm/node")
    seen.began = time.time()
    seen.done = machine.run(*_register(nodes, *more, "--accept-host-key", nodes[NAME].sshd.fingerprint))


@when("the user registers it without a port")
def _add_without_port(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    words = _register(nodes, "--accept-host-key", nodes[NAME].sshd.fingerprint)
    at = words.index("--ssh-port")
    seen.done = machine.run(*words[:at], *words[at + 2 :])


@then("the registry holds port 22")
def _port_22(machine: Machine) -> None:
    assert [row["ssh_port"] for row in listed(machine)] == [22]


@then("/v2/registry/beehives/add was asked for exactly what the user gave")
def _asked(nodes: Nodes, way: dict[str, Proxy]) -> None:
    sent = bytes(way["queen"].received)
    assert sent.count(b"POST ") == 1
    head, _, rest = sent.partition(b"POST /v2/registry/beehives/add HTTP/1.1\r\n")[2].partition(b"\r\n\r\n")
    length = int(dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n"))[b"content-length"])
    asked = json.loads(rest[:length])
    sshd = nodes[NAME].sshd
    assert {name: value for name, value in asked.items() if value is not None} == {
        "node_name": NAME,
        "ssh_host": sshd.address,
        "ssh_port": sshd.port,
        "ssh_user": sshd.user,
        "ssh_key_path": str(sshd.key),
        "install_path": "~/swarm/node",
        "git_repo_url": "https://example.com/rbee.git",
        "git_branch": "next",
        "accept_host_key": sshd.fingerprint,
        "tunnel": "auto",
    }


@when("the user registers it without a word about its host key")
def _add_unknown(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    seen.done = machine.run(*_register(nodes))


@when(parsers.parse("the user registers it on a terminal, and says {answer} when asked about the fingerprint"))
def _add_on_terminal(machine: Machine, nodes: Nodes, seen: Seen, answer: str) -> None:
    question = "Is this the key of that machine? [y/N] "
    seen.done = done = run_on_terminal(machine, *_register(nodes), answers={question: f"{answer}\n"})
    assert nodes[NAME].sshd.fingerprint in done.text
    assert question in done.text


@then("stderr shows the fingerprint of its host key, and the option that accepts it")
def _fingerprint(nodes: Nodes, seen: Seen) -> None:
    assert f"--accept-host-key {nodes[NAME].sshd.fingerprint}" in seen.done.stderr.decode()


def listed(machine: Machine) -> list[dict[str, Any]]:
    """Return the registry as `setup list-nodes --json` tells it."""
    done = machine.run("setup", "list-nodes", "--json")
    assert done.returncode == 0, done.stderr.decode()
    found: list[dict[str, Any]] = json.loads(done.stdout)["nodes"]
    return found


@then("no node is registered")
def _none(machine: Machine) -> None:
    assert listed(machine) == []


@then("the registry holds its host key")
def _pinned(machine: Machine, nodes: Nodes) -> None:
    assert listed(machine)[0]["host_key"] == nodes[NAME].sshd.public_key


@then("the registry holds every field as it was given, with paths that are absolute and what the machine has")
def _row(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    node = nodes[NAME]
    with closing(sqlite3.connect(f"file:{machine.state / 'beehives.db'}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = map(dict, connection.execute("SELECT * FROM beehives"))
    assert seen.began <= row.pop("last_connected_unix") <= time.time()
    assert row == {
        "node_name": NAME,
        "ssh_host": node.address,
        "ssh_port": node.sshd.port,
        "ssh_user": node.sshd.user,
        "ssh_key_path": str(node.sshd.key),
        "git_repo_url": "https://example.com/rbee.git",
        "git_branch": "next",
        "install_path": f"{node.home}/swarm/node",
        "tunnel": "auto",
        "host_key": node.sshd.public_key,
        "last_error": None,
        "status": "reachable",
        "backends": '["cpu"]',
        "devices": '{"cpu": 1}',
        "spawned_by_queen": 0,
        "hive_url": None,
        "is_tunnelled": 0,
        "hive_id": None,
        "ssh_settings": "null",  # all was given
    }


@then("stderr says that the connection to its host is tested, and works")
def _tested(nodes: Nodes, seen: Seen) -> None:
    host, told = nodes[NAME].address, seen.done.stderr.decode()
    assert f"Testing SSH connection to {host}\n" in told
    assert f"SSH connection to {host} works: " in told


@then("sshd there let that user in with that key, and ran a command")
def _let_in(nodes: Nodes) -> None:
    sshd = nodes[NAME].sshd
    said = sshd.log.read_text()
    shown = subprocess.run(["ssh-keygen", "-lf", f"{sshd.key}.pub"], check=True, capture_output=True, text=True)
    accepted = f"Accepted publickey for {sshd.user} from"
    assert any(accepted in line and shown.stdout.split()[1] in line for line in said.splitlines()), said
    assert f"Starting session: command for {sshd.user} from" in said


@when("the user lists the nodes")
def _list(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("setup", "list-nodes")


@then(parsers.parse('stdout says "{words}"'))
def _stdout(seen: Seen, words: str) -> None:
    assert words in seen.done.stdout.decode()


@then("stdout shows a heading, and of each node its name, host, status, last connection and install path")
def _blocks(nodes: Nodes, seen: Seen) -> None:
    heading, *blocks = seen.done.stdout.decode().strip().split("\n\n")
    assert heading == "Registered nodes"
    assert [block.split()[0] for block in blocks] == ["attic", "workstation"]
    for block in blocks:
        head, *lines = block.splitlines()
        node = nodes[head.split()[0]]
        assert head == f"{node.name} ({node.address}:{node.sshd.port})"
        told = {line[2:17].strip(): line[18:] for line in lines}
        assert told["status"] == "reachable"
        assert told["install path"] == str(node.install)
        when = datetime.strptime(told["last connected"], "%Y-%m-%d %H:%M:%S").astimezone()
        assert 0 <= time.time() - when.timestamp() < 60


@when("the user removes it")
def _remove(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("setup", "remove-node", "--name", NAME)


@when("the user runs infer there")
def _infer_there(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("infer", "--node", NAME, "--prompt", "Once upon a time")


def _connections(nodes: Nodes) -> int:
    """Return how many connections the node's sshd has seen."""
    return nodes[NAME].sshd.log.read_text().count("Connection from")


@when(parsers.parse("the user runs infer on the node {name}"))
def _infer_on(machine: Machine, nodes: Nodes, seen: Seen, name: str) -> None:
    seen.connections = _connections(nodes)
    seen.done = machine.run("infer", "--node", name, "--prompt", "Once upon a time")


@then("nothing was connected to, and no hive was started")
def _alone(machine: Machine, nodes: Nodes, seen: Seen) -> None:
    assert _connections(nodes) == seen.connections
    assert not (machine.state / "logs" / "hive.log").exists()


@then(parsers.parse("nothing runs on {name}"))
def _nothing_there(nodes: Nodes, name: str) -> None:
    wait_until(lambda: not nodes[name].processes(), seconds=5)
