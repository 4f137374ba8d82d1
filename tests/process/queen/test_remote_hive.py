"""The hive of a registered node: started over SSH, used, and ended, with a real queen and real OpenSSH."""

from __future__ import annotations

import json
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from rbee import __version__
from tests.kit.ports import own_address
from tests.kit.remote_node import RemoteNode, infer, register, row, rows
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RemoteNode]:
    found = RemoteNode(tmp_path / "workstation")
    yield found
    found.close()


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "home", RBEE_TIMEOUTS_DRAIN="2", RBEE_TIMEOUTS_CASCADE="8")
    yield found
    found.kill()


def test_a_cold_start_a_warm_one_and_the_end(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    cold = infer(swarm, node)
    assert (cold.returncode, len(cold.stdout) > 5) == (0, True), cold.stderr
    for words in (f"Starting the hive on {node.name}", f"The hive on {node.name} answers at {node.address}:9200"):
        assert words in cold.stderr
    hive, workers = node.hive_pid, node.processes("worker")
    warm = infer(swarm, node)
    assert (warm.returncode, warm.stdout) == (0, cold.stdout)
    assert "Starting" not in warm.stderr
    assert (node.hive_pid, node.processes("worker")) == (hive, workers)
    assert row(swarm)["spawned_by_queen"] is True
    swarm.end()
    node.wait_empty(1)


def test_a_hive_that_a_user_started_is_used_and_left(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    with node.users_hive() as hive:
        done = infer(swarm, node)
        assert done.returncode == 0, done.stderr
        assert "Starting the hive" not in done.stderr
        swarm.end()
        assert node.hive_pid == hive.pid
    node.wait_empty()


def test_a_users_hive_in_the_place_of_ours_is_left_too(swarm: Swarm, node: RemoteNode) -> None:
    """The registry says that a queen started it, and that one has gone."""
    swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    node.signal_hive(signal.SIGTERM)
    node.wait_empty()
    with node.users_hive() as hive:
        assert row(swarm)["spawned_by_queen"] is True
        swarm.end()
        assert node.hive_pid == hive.pid


def test_a_users_hive_that_only_its_machine_reaches(swarm: Swarm, node: RemoteNode) -> None:
    """It listens elsewhere: SSH finds it and leads there."""
    swarm.start_queen()
    register(swarm, node)
    elsewhere = own_address()
    with node.users_hive(address=elsewhere) as hive:
        done = infer(swarm, node)
        assert done.returncode == 0, done.stderr
        assert "going through SSH" in done.stderr
        assert node.hive_pid == hive.pid
        swarm.end()
        assert node.hive_pid == hive.pid


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda node: (node.install / "bin/rbee").unlink(),
            ["rbee is not installed there", "rbee setup install --node"],
        ),
        (lambda node: (node.install / "bin/rbee-python").unlink(), ["rbee-python is missing in its install path"]),
        (lambda node: (node.install / "token").unlink(), ["the swarm's token is missing", "rbee setup install --node"]),
        (lambda node: node.configure(worker={"slots": 0}), ["worker.slots", "config.toml"]),
        (
            lambda node: node.install_program("sys.exit('no engine in /srv/private/lib.so')"),
            ["exit code 1", "no engine in …/lib.so", "hive.log"],
        ),
    ],
    ids=["no program", "no python", "no token", "configuration", "exit"],
)
def test_why_a_hive_does_not_start(swarm: Swarm, node: RemoteNode, spoil: Any, words: list[str]) -> None:
    swarm.start_queen()
    register(swarm, node)
    spoil(node)
    check_that_it_does_not_start(swarm, node, *words)


def test_a_hive_that_is_not_ready_in_time_is_ended(swarm: Swarm, node: RemoteNode) -> None:
    swarm.env["RBEE_TIMEOUTS_START"] = "3"
    swarm.start_queen()
    register(swarm, node)
    node.install_program("import time; print('slow', file=sys.stderr, flush=True); time.sleep(60)")
    check_that_it_does_not_start(swarm, node, "was not ready after 3 s", "slow")


def check_that_it_does_not_start(swarm: Swarm, node: RemoteNode, *words: str) -> None:
    done = infer(swarm, node)
    assert (done.returncode, done.stdout) == (1, "")
    for word in (f"node {node.name}: ", *words):
        assert word in done.stderr
    node.wait_empty(1)
    assert row(swarm)["spawned_by_queen"] is False


def test_a_port_that_is_taken_there(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    with socket.create_server((node.address, 9200)):
        done = infer(swarm, node)
    assert done.returncode == 1
    assert f"node {node.name}: port 9200 on {node.address} is taken" in done.stderr
    assert "another port: `port` under [hive] in config.toml, in its install path there" in done.stderr
    assert "--port" not in done.stderr
    assert "RBEE_HIVE_PORT" not in done.stderr


def test_a_hive_of_another_version(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    node.install_program("import rbee, rbee.wire.common as c; rbee.__version__, c.API_VERSION = '0.0.9', 'v0'")
    done = infer(swarm, node)
    assert done.returncode == 1
    assert "\n  queen-rbee " in done.stderr
    assert "\n  rbee-hive 0.0.9\n" in done.stderr
    assert f"rbee setup install --node {node.name}" in done.stderr
    assert infer(swarm, node).stderr.splitlines()[-4:] == done.stderr.splitlines()[-4:]
    swarm.end()
    node.wait_empty(1)


def test_a_hive_of_a_neighbouring_version_is_used(swarm: Swarm, node: RemoteNode) -> None:
    """A swarm is brought from one version to the next node by node, and back."""
    swarm.start_queen()
    register(swarm, node)
    node.install_program("import rbee; rbee.__version__ = '0.0.9'")
    done = infer(swarm, node, "--verbose")
    assert (done.returncode, len(done.stdout) > 5) == (0, True), done.stderr
    assert f"it is rbee 0.0.9, and this queen {__version__}: `rbee setup install --node {node.name}`" in done.stderr
    status = json.loads(swarm.run("status", "--json").stdout)
    assert {found["node"]: found["version"] for found in status["nodes"]}[node.name] == "0.0.9"
    assert infer(swarm, node).returncode == 0
    swarm.end()
    node.wait_empty(1)


def test_the_next_queen_owns_what_a_killed_one_started(swarm: Swarm, node: RemoteNode) -> None:
    queen = swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    hive, workers = node.hive_pid, node.processes("worker")
    queen.kill()
    queen.wait()
    heir = swarm.start_queen()
    listed = wait_until(swarm.workers, "the workers are found")
    assert [(worker["node"], worker["state"]) for worker in listed] == [(node.name, "idle")]
    assert (node.hive_pid, node.processes("worker")) == (hive, workers)
    heir.terminate()
    assert heir.wait(20) == 0
    node.wait_empty(1)


def test_the_next_hive_adopts_the_workers_of_a_killed_one(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    first = infer(swarm, node)
    workers = node.processes("worker")
    node.signal_hive(signal.SIGKILL)
    wait_until(lambda: not node.processes("hive"), "the hive is gone")
    second = infer(swarm, node)
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    assert node.processes("worker") == workers
    swarm.end()
    node.wait_empty(1)


@pytest.mark.parametrize("has_queen", [True, False], ids=["queen", "no queen"])
def test_down_ends_the_workers_of_a_hive_that_was_killed(swarm: Swarm, node: RemoteNode, has_queen: bool) -> None:
    queen = swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    if not has_queen:
        queen.kill()
        queen.wait()
    node.signal_hive(signal.SIGKILL)
    wait_until(lambda: not node.processes("hive"), "the hive is gone")
    assert node.processes("worker")
    down = swarm.run("down")
    assert down.returncode == 0, down.stderr
    node.wait_empty(1)


def test_a_hive_that_an_update_could_not_end_stays_ours(swarm: Swarm, node: RemoteNode) -> None:
    """It was killed, and none starts there now that would end its workers: the next queen tries again."""
    swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    node.signal_hive(signal.SIGKILL)
    wait_until(lambda: not node.processes("hive"), "the hive is gone")
    (node.install / "bin/rbee").unlink()
    done = swarm.run("setup", "update-node", "--name", node.name, "--git-branch", "next")
    assert done.returncode == 0, done.stderr
    assert f"The hive on {node.name} could not be ended, and may run still" in done.stderr
    assert (row(swarm)["git_branch"], row(swarm)["spawned_by_queen"]) == ("next", True)
    assert node.processes("worker")
    node.install_program()
    swarm.end()
    node.wait_empty(1)


def test_a_hive_that_does_not_answer_is_ended_over_ssh(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    node.signal_hive(signal.SIGSTOP)
    swarm.end()
    node.wait_empty(1)


def test_a_node_that_is_down_delays_nothing_and_stays_ours(swarm: Swarm, node: RemoteNode, tmp_path: Path) -> None:
    other = RemoteNode(tmp_path / "other", "other")
    try:
        swarm.start_queen()
        register(swarm, node)
        register(swarm, other)
        assert infer(swarm, node).returncode == infer(swarm, other).returncode == 0
        node.sshd.stop()
        node.signal_hive(signal.SIGSTOP)
        done = swarm.run("down")
        assert done.returncode == 0, done.stderr
        assert f"The hive on {node.name} could not be ended, and may run still" in done.stderr
        assert "everything" not in done.stderr
        assert "other" not in done.stderr
        other.wait_empty(8)
        swarm.end()
        node.sshd.start()
        node.signal_hive(signal.SIGCONT)
        swarm.start_queen()
        assert {row["node_name"]: row["spawned_by_queen"] for row in rows(swarm)} == {node.name: True, "other": False}
        swarm.end()
        node.wait_empty(1)
    finally:
        other.close()


def test_a_queen_that_ends_while_a_hive_starts_leaves_none(swarm: Swarm, node: RemoteNode) -> None:
    queen = swarm.start_queen()
    register(swarm, node)
    node.install_program("import time; time.sleep(1.5)")
    answers: list[httpx.Response] = []

    def ask() -> None:
        with swarm.client() as client:
            answers.append(client.post("/v2/tasks", json={"prompt": "A", "node": node.name}))

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: node.processes("hive"), "the hive starts")
    queen.terminate()
    swarm.end()
    node.wait_empty(1)
    client.join()
    assert answers[0].json()["error"]["code"] == "SHUTTING_DOWN"


def test_the_end_of_an_ssh_connection_does_not_end_the_hive(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    hive = node.hive_pid
    node.sshd.stop()
    done = infer(swarm, node)
    assert (done.returncode, node.hive_pid) == (0, hive), done.stderr
    node.sshd.start()


def test_a_node_removed_out_of_reach_is_reported_as_left_running(swarm: Swarm, node: RemoteNode) -> None:
    swarm.start_queen()
    register(swarm, node)
    assert infer(swarm, node).returncode == 0
    node.signal_hive(signal.SIGKILL)
    node.sshd.stop()
    done = swarm.run("setup", "remove-node", "--name", node.name)
    assert done.returncode == 0, done.stderr
    assert f"The hive on {node.name} could not be ended, and may run still" in done.stderr
    assert rows(swarm) == []
