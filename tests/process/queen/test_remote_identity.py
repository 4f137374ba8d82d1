"""Hives at an address that are not those of the node: another node's, another installation's, another swarm's."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from rbee import __version__
from tests.kit.ports import hold_port, own_address
from tests.kit.remote_node import TEXT, RemoteNode, infer, register, rows
from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def address() -> str:
    return own_address()


@pytest.fixture
def attic(tmp_path: Path, address: str) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "attic", "attic", address)
    yield found
    found.close()


@pytest.fixture
def cellar(tmp_path: Path, address: str) -> Iterator[RemoteNode]:
    """Another installation on the machine that `attic` is."""
    found = RemoteNode(tmp_path / "cellar", "cellar", address)
    yield found
    found.close()


@pytest.fixture
def swarm(tmp_path: Path, address: str) -> Iterator[Swarm]:
    found = Swarm(
        tmp_path / "home",
        RBEE_TIMEOUTS_DRAIN="2",
        RBEE_TIMEOUTS_CASCADE="8",
        RBEE_HIVE_HOST=address,
        RBEE_HIVE_PORT="9200",
    )
    found.start_queen()
    yield found
    found.kill()


def test_two_nodes_do_not_share_a_hive(swarm: Swarm, attic: RemoteNode, cellar: RemoteNode) -> None:
    register(swarm, attic)
    register(swarm, cellar)
    assert infer(swarm, attic).returncode == 0
    hive = attic.hive_pid
    done = infer(swarm, cellar)
    assert (done.returncode, done.stdout) == (1, "")
    where = f"what answers at {cellar.address}:9200 is the hive of node attic, not that of node cellar"
    assert f"rbee: node cellar: {where}\n" in done.stderr
    assert "hint: two hives cannot share an address and a port" in done.stderr
    assert f"cellar is unreachable: {where}" in swarm.run("workers", "list").stdout
    # Nor does the queen's own host, where the same address was given to it.
    local = swarm.run("infer", "--node", "local", "--prompt", "A")
    assert f"what answers at {attic.address}:9200 is the hive of node attic, not that of node local" in local.stderr
    # The hint helps, and every later request finds each of them.
    cellar.configure(hive={"port": hold_port(cellar.address)})
    assert infer(swarm, cellar).returncode == 0
    assert infer(swarm, attic).returncode == 0
    assert len({row["hive_id"] for row in rows(swarm)}) == 2
    assert attic.hive_pid == hive
    with swarm.client() as queen:
        assert queen.post("/v2/registry/beehives/remove", json={"node_name": "cellar"}).status_code == 200
    cellar.wait_empty(1)
    assert attic.hive_pid == hive
    swarm.end()
    attic.wait_empty(1)


@pytest.mark.parametrize("wrong", ["cellar", "local"])
def test_a_node_that_took_another_ones_hive_for_its_own_loses_it_once_that_node_names_it(
    swarm: Swarm, attic: RemoteNode, cellar: RemoteNode, wrong: str
) -> None:
    """Which order they come in is a race where the queen starts the hive: here it has answered for long."""
    attic.give_token(swarm.home)
    with attic.users_hive() as hive:
        if wrong == "cellar":
            register(swarm, cellar)
        done = swarm.run("infer", "--node", wrong, *TEXT)
        assert (done.returncode, len(attic.processes("worker"))) == (0, 1), done.stderr
        register(swarm, attic)
        for _ in range(2):
            done = infer(swarm, attic)
            assert done.returncode == 0, done.stderr
            done = swarm.run("infer", "--node", wrong, *TEXT)
            assert (done.returncode, done.stdout) == (1, "")
            where = f"what answers at {attic.address}:9200 is the hive of node attic, not that of node {wrong}"
            assert where in done.stderr
            # Nor does the next queen mistake it, to which no node has named its hive yet.
            swarm.end()
            swarm.start_queen()
        assert attic.hive_pid == hive.pid
        swarm.end()
    attic.wait_empty()


def test_a_hive_in_the_place_of_the_nodes_own_is_neither_used_nor_ended(
    swarm: Swarm, attic: RemoteNode, cellar: RemoteNode
) -> None:
    """The registry says that a queen started the hive there, and that one has gone."""
    register(swarm, attic)
    assert infer(swarm, attic).returncode == 0
    attic.signal_hive(signal.SIGTERM)
    attic.wait_empty()
    cellar.give_token(swarm.home)
    with cellar.users_hive("--started-by", "queen") as hive:
        done = infer(swarm, attic)
        assert done.returncode == 1
        assert f"{attic.address}:9200 is a hive of another installation, not that of node attic" in done.stderr
        # An update takes the hive that answers for the node's own.
        assert swarm.run("setup", "update-node", "--name", "attic").returncode == 0
        done = infer(swarm, attic)
        assert (done.returncode, len(cellar.processes("worker"))) == (0, 1), done.stderr
        swarm.end()
        assert cellar.hive_pid == hive.pid
    cellar.wait_empty()


@contextmanager
def stranger(address: str, swarm: str) -> Iterator[bytearray]:
    """A hive of another swarm at `address`; yields what it was told."""
    heard = bytearray()
    body = {"status": "alive", "version": __version__, "api_version": "v1", "hive_id": "0" * 32, "swarm": swarm}
    text = json.dumps(body).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(text), text)

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as client:
                    heard.extend(client.recv(65536))
                    client.sendall(answer)

    with socket.create_server((address, 9200)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield heard
        finally:  # else a test that fails would keep the interpreter from its end
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("where", ["attic", "local"])
def test_a_hive_of_another_swarm_is_not_shown_the_token(swarm: Swarm, attic: RemoteNode, where: str) -> None:
    register(swarm, attic)
    with stranger(attic.address, "f" * 32) as heard:
        done = swarm.run("infer", "--node", where, "--prompt", "A")
        assert done.returncode == 1
        # On this machine it is seen who listens; on another one it is not.
        whose = r" \(user [^()]+\)" if where == "local" else ""
        said = rf"authentication failed: the hive at {attic.address}:9200{whose} does not accept the queen's token"
        assert re.search(said, done.stderr), done.stderr
        assert "hint: it may belong to another user" in done.stderr
    assert heard.count(b"GET /v1/health") >= 1
    assert b"Authorization" not in heard


def test_another_program_at_the_usual_port_leaves_the_node_another_one(swarm: Swarm, attic: RemoteNode) -> None:
    register(swarm, attic)
    attic.configure(hive={"port": hold_port(attic.address)})
    with socket.create_server((attic.address, 9200)):
        done = infer(swarm, attic)
        assert done.returncode == 0, done.stderr
        swarm.end()
    attic.wait_empty(1)
