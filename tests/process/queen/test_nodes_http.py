"""Adding, changing and removing nodes over HTTP, with a real queen and real OpenSSH."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.bare_node import BareNode
from tests.kit.proxy import Proxy
from tests.kit.remote_node import RemoteNode
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

ADD, UPDATE = "/v2/registry/beehives/add", "/v2/registry/beehives/update"
LIST, REMOVE = "/v2/registry/beehives/list", "/v2/registry/beehives/remove"
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    found = Swarm(
        tmp_path_factory.mktemp("home") / "state",
        RBEE_TIMEOUTS_SSH_CONNECT="3",
        RBEE_TIMEOUTS_DRAIN="1",
        RBEE_TIMEOUTS_CASCADE="10",  # one hive has to be killed and another one started within it
    )
    found.start_queen()
    yield found
    found.end()
    found.kill()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareNode]:
    found = BareNode(tmp_path_factory.mktemp("node") / "sshd")
    yield found
    found.close()


@pytest.fixture
def queen(swarm: Swarm) -> Iterator[httpx.Client]:
    with swarm.client() as client:
        yield client
        for row in client.get(LIST).json()["nodes"]:
            client.post(REMOVE, json={"node_name": row["node_name"]})
    (swarm.home / "known_hosts").unlink(missing_ok=True)


def rows(queen: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = queen.get(LIST).json()["nodes"]
    return found


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error object, once it is the one that was expected."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_every_field_is_stored(queen: httpx.Client, node: BareNode) -> None:
    given = {
        "git_repo_url": "https://example.com/rbee.git",
        "git_branch": "next",
        "backends": ["cpu", "cuda"],
        "devices": {"cpu": 1, "cuda": 2},
        "tunnel": "always",
        "install_path": '/srv/it\'s "a" path $(id)',
    }
    answer = queen.post(ADD, json=node.description(**given))
    assert answer.json() == {"success": True, "message": "node workstation was saved", "node_name": "workstation"}
    (row,) = rows(queen)
    for name, value in given.items():
        assert row[name] == value
    assert row["host_key"] == node.sshd.public_key
    assert time.time() - row["last_connected_unix"] < 10


def test_what_is_not_given_is_found_out(queen: httpx.Client, node: BareNode) -> None:
    assert queen.post(ADD, json=node.description()).status_code == 200
    (row,) = rows(queen)
    assert (row["install_path"], row["status"]) == (str(node.install), "reachable")
    assert (row["backends"], row["devices"], row["git_branch"]) == (["cpu"], {"cpu": 1}, "main")


def test_a_stream_narrates_first(queen: httpx.Client, node: BareNode) -> None:
    lines = queen.post(ADD, json=node.description(), headers=STREAM).text.splitlines()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert names == ["narration", "narration", "success"]
    assert told[0]["human"] == f"Testing SSH connection to {node.sshd.address}"
    assert "Linux x86_64, Python 3." in told[1]["human"]
    assert told[2]["success"] is True
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize("reason", ["timeout", "refused", "dns", "auth", "host_key"])
def test_a_failed_connection_says_why_and_stores_nothing(
    queen: httpx.Client, node: BareNode, tmp_path: Path, reason: str
) -> None:
    with Proxy((node.sshd.address, node.sshd.port), host=node.sshd.address) as proxy, socket.socket() as nobody:
        proxy.order("black hole")
        nobody.bind((node.sshd.address, 0))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        changes = {
            "timeout": {"ssh_port": proxy.port},
            "refused": {"ssh_port": nobody.getsockname()[1]},
            "dns": {"ssh_host": "no-such-host.invalid"},
            "auth": {"ssh_key_path": str(tmp_path / "key")},
            "host_key": {"accept_host_key": None},
        }[reason]
        found = error(queen.post(ADD, json=node.description(**changes)), 400, "SSH_FAILED")
    assert found["details"]["reason"] == reason
    assert rows(queen) == []


def test_what_no_name_can_be_is_a_name_that_is_not_known(queen: httpx.Client, node: BareNode) -> None:
    found = error(queen.post(ADD, json=node.description(ssh_host="a" * 100)), 400, "SSH_FAILED")
    assert found["details"]["reason"] == "dns"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo This account is currently not available.; exit 1", "This account is currently not available."),
        ("echo Welcome!; exit 0", "something else came in place of ours"),
        ("cat", "something else came in place of ours"),
        ("cat /dev/urandom", "more than 16 MB"),
        ("head -c 100000000 /dev/urandom >&2", "something else came in place of ours"),
        ("printf '\\033]0;owned\\007\\033[2J'; exit 3", "\x1b]0;owned"),
    ],
)
def test_a_machine_that_runs_something_else_is_an_error(
    swarm: Swarm, queen: httpx.Client, tmp_path: Path, program: str, words: str
) -> None:
    """The stand-in gets what the queen would run, and does what it likes; what it says is passed on only as text."""
    node = BareNode(tmp_path / "sshd", ForceCommand=program)
    try:
        found = error(queen.post(ADD, json=node.description()), 400, "SSH_FAILED")
        assert found["details"]["reason"] == "command"
        assert words in found["message"]
        assert len(found["message"]) < 1000
        described = ("--ssh-host", node.sshd.address, "--ssh-port", str(node.port), "--ssh-user", node.sshd.user)
        known = ("--ssh-key", str(node.sshd.key), "--accept-host-key", node.sshd.fingerprint)
        done = swarm.run("setup", "add-node", "--name", "workstation", *described, *known)
        assert done.returncode == 1
        assert "\x1b" not in done.stderr, "nobody else draws on the user's terminal"
        assert rows(queen) == []
    finally:
        node.close()


def test_a_name_is_taken_once(queen: httpx.Client, node: BareNode) -> None:
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(queen.post(ADD, json=node.description()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    error(queen.post(ADD, json=node.description()), 409, "NODE_EXISTS")
    assert len(rows(queen)) == 1


def test_an_installation_has_one_name(queen: httpx.Client, node: BareNode) -> None:
    """A second one would start and end the same hive."""
    assert queen.post(ADD, json=node.description()).status_code == 200
    again = node.description(node_name="attic")
    found = error(queen.post(ADD, json=again), 409, "NODE_EXISTS")
    assert found["message"] == "node attic would be node workstation once more: the same folder on the same machine"
    assert queen.post(ADD, json=again | {"install_path": "~/elsewhere"}).status_code == 200
    # Nor by an update, which leaves the node as it was; to itself a node may be the same.
    assert error(queen.post(UPDATE, json=again), 409, "NODE_EXISTS")["details"]["same_as"] == "workstation"
    assert queen.post(UPDATE, json=again | {"install_path": "~/elsewhere"}).status_code == 200
    assert [row["install_path"].rpartition("/")[2] for row in rows(queen)] == ["elsewhere", "node"]


def test_the_queens_own_host_is_no_node_of_the_registry(queen: httpx.Client, node: BareNode) -> None:
    local = node.description(node_name="local")
    error(queen.post(ADD, json=local), 409, "NODE_EXISTS")
    for path, body in ((UPDATE, local), (REMOVE, {"node_name": "local"})):
        found = error(queen.post(path, json=body), 404, "NODE_NOT_FOUND")
        assert "add-node" not in found["hint"], "it cannot be added"


def test_an_unknown_node_is_refused_before_anything_is_connected_to(queen: httpx.Client, node: BareNode) -> None:
    with Proxy((node.sshd.address, node.sshd.port), host=node.sshd.address) as proxy:
        described = node.description(node_name="nowhere", ssh_port=proxy.port)
        for path, body in (
            (UPDATE, described),
            ("/v2/registry/beehives/install", {"node_name": "nowhere"}),
        ):
            found = error(queen.post(path, json=body), 404, "NODE_NOT_FOUND")
            assert "rbee setup add-node --name nowhere" in found["hint"]
        found = error(queen.post(REMOVE, json={"node_name": "nowhere"}), 404, "NODE_NOT_FOUND")
        assert found["hint"] == "no node is registered", "nobody registers a node in order to remove it"
        assert proxy.accepted == 0


def test_an_update_through_the_keeper_keeps_what_is_not_given(
    swarm: Swarm, queen: httpx.Client, node: BareNode
) -> None:
    described = node.description(git_repo_url="/srv/rbee.git", tunnel="never", devices={"cpu": 7})
    assert queen.post(ADD, json=described).status_code == 200
    (before,) = rows(queen)
    done = swarm.run("setup", "update-node", "--name", "workstation", "--git-branch", "next")
    assert done.returncode == 0, done.stderr
    assert "Node workstation was changed." in done.stderr
    (after,) = rows(queen)
    assert after.pop("last_connected_unix") > before.pop("last_connected_unix")
    assert after == before | {"git_branch": "next", "devices": {"cpu": 1}}
    done = swarm.run("setup", "update-node", "--name", "nowhere", "--git-branch", "next")
    assert (done.returncode, "node nowhere is not in the registry" in done.stderr) == (1, True), done.stderr


def test_an_update_that_fails_changes_nothing(queen: httpx.Client, node: BareNode) -> None:
    assert queen.post(ADD, json=node.description()).status_code == 200
    before = rows(queen)
    error(queen.post(UPDATE, json=node.description(ssh_host="no-such-host.invalid")), 400, "SSH_FAILED")
    assert rows(queen) == before


def test_a_changed_host_key_stops_everything(queen: httpx.Client, swarm: Swarm, tmp_path: Path) -> None:
    """The pinned key counts, also where no known_hosts has it and someone would accept the new one."""
    node = BareNode(tmp_path / "sshd")
    try:
        assert queen.post(ADD, json=node.description()).status_code == 200
        (swarm.home / "known_hosts").unlink()
        known = node.sshd.fingerprint
        node.sshd.stop()
        node.sshd.new_host_key()
        node.sshd.start()
        shown = node.sshd.fingerprint
        found = error(queen.post(UPDATE, json=node.description()), 400, "SSH_FAILED")
        assert (found["details"]["known"], found["details"]["fingerprint"]) == ([known], shown)
        for command in (
            ("setup", "update-node", "--name", "workstation", "--accept-host-key", shown),
            ("setup", "install", "--node", "workstation"),
            ("infer", "--node", "workstation", "--prompt", "A"),
        ):
            done = swarm.run(*command)
            assert done.returncode == 1
            assert f"known {known}" in done.stderr
            assert f"shown {shown}" in done.stderr
        # What the hint advises: to forget it, and to add it again.
        assert "rbee setup remove-node" in found["hint"]
        assert queen.post(REMOVE, json={"node_name": "workstation"}).status_code == 200
        assert queen.post(ADD, json=node.description()).status_code == 200
    finally:
        node.close()


def test_a_removal_that_is_given_up_is_done_all_the_same(swarm: Swarm, queen: httpx.Client, tmp_path: Path) -> None:
    """The hive there is stopped, so its end takes seconds; the client hangs up meanwhile."""
    node = RemoteNode(tmp_path / "attic", "attic")
    try:
        node.configure(timeouts={"orphan": 1})  # it will be killed
        assert queen.post(ADD, json=node.description()).status_code == 200
        node.give_token(swarm.home)
        done = swarm.run("infer", "--node", "attic", "--prompt", "A", "--max-tokens", "1")
        assert done.returncode == 0, done.stderr
        node.signal_hive(signal.SIGSTOP)
        with queen.stream("POST", REMOVE, json={"node_name": "attic"}, headers=STREAM) as answer:
            for line in answer.iter_lines():
                if "Ending the hive on attic" in line:
                    break
            assert len(rows(queen)) == 1, "it has hardly begun"
        wait_until(lambda: rows(queen) == [], "the node is removed")
        node.wait_empty(20)
        assert queen.post(ADD, json=node.description()).status_code == 200, "and may be added again"
    finally:
        node.close()
