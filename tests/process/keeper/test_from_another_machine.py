"""Commands on another machine than the queen: two real network namespaces, ours with the queen, the node with the user.

The two users have state folders of their own, and share the token alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters.daemon import instance
from tests.kit import network
from tests.kit.command import run_rbee
from tests.kit.network import OURS
from tests.kit.sshd import Sshd
from tests.kit.standins import standin
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.network import Network

REASON = network.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def net() -> Iterator[Network]:
    found = network.Network()
    yield found
    found.close()


class User:
    """A user of the other machine, whose commands name the queen's address."""

    def __init__(self, net: Network, home: Path, swarm: Swarm) -> None:
        self.net = net
        self.home = home
        home.mkdir()
        shutil.copy(swarm.home / "token", home / "queens.token")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")} | {
            "HOME": str(home),
            "RBEE_HOME": str(home / "state"),
            "RBEE_TOKEN_FILE": str(home / "queens.token"),
            "RBEE_TIMEOUTS_CALL": "2",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.net.node():
            return run_rbee(*arguments, env=self.env | environment)

    def infer(self, url: str) -> subprocess.CompletedProcess[str]:
        done = self.run("infer", "--prompt", "A", "--max-tokens", "3", "--queen", url)
        assert str(self.home / "state" / "logs") not in done.stderr, "no log of this machine is about that queen"
        return done

    def started(self) -> bool:
        """Whether a daemon was started on this machine."""
        return any((self.home / "state" / f"{role}.lock").exists() for role in ("queen", "hive"))

    def unreached(self) -> list[str]:
        """Return the hosts of workers that were tried in vain."""
        file = self.home / "state" / "queens.json"
        known = json.loads(file.read_text()).values() if file.exists() else ()
        return [host for queen in known for host in queen["unreached"]]


@contextmanager
def a_queen(folder: Path, queen: str, hive: str) -> Iterator[Swarm]:
    swarm = Swarm(
        folder / "queens",
        RBEE_QUEEN_HOST=queen,
        RBEE_HIVE_HOST=hive,
        RBEE_WORKER_COMMAND=standin("well"),
        RBEE_TIMEOUTS_DRAIN="2",
    )
    try:
        # Its hive listens where others reach it, and makes no token.
        subprocess.run([*swarm.program, "token"], env=swarm.env, cwd=swarm.cwd, check=True, capture_output=True)
        swarm.start_queen()
        yield swarm
        swarm.end()
    finally:
        swarm.kill()


def task(user: User, swarm: Swarm, url: str) -> dict[str, Any]:
    """Return where a client of HTTP on the user's machine is sent."""
    code = (
        "import httpx, sys; print(httpx.post(sys.argv[1] + '/v2/tasks', json={'prompt': 'A'}, timeout=60, "
        "trust_env=False, headers={'Authorization': 'Bearer ' + open(sys.argv[2]).read().strip()}).text)"
    )
    with user.net.node():
        done = subprocess.run(
            [sys.executable, "-c", code, url, str(swarm.home / "token")],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("queen", "hive", "direct"),
    [(OURS, "127.0.0.1", False), (OURS, OURS, True), ("0.0.0.0", "0.0.0.0", True)],
)
def test_an_answer_comes_straight_from_the_worker_or_through_the_queen(
    tmp_path: Path, net: Network, queen: str, hive: str, direct: bool
) -> None:
    with a_queen(tmp_path, queen, hive) as swarm:
        url = f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}"
        user = User(net, tmp_path / "user", swarm)
        done = user.infer(url)
        assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
        assert done.stderr.count("is not encrypted") == 1
        found = task(user, swarm, url)
        assert found["direct"] is direct
        assert (f"//{OURS}:" in found["worker_url"]) is direct
        assert not user.started()
        assert direct or user.unreached() == [], "the queen has said so"
        logs = "".join(path.read_text() for path in (swarm.home / "logs").iterdir())
        assert "//0.0.0.0" not in logs + done.stderr + (swarm.home / "queen.lock").read_text()


def test_every_command_is_about_the_queen_that_is_named(tmp_path: Path, net: Network) -> None:
    with a_queen(tmp_path, OURS, "127.0.0.1") as swarm:
        url = f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}"
        user = User(net, tmp_path / "user", swarm)
        status = user.run("status", "--json", "--queen", url)
        view = json.loads(status.stdout)
        assert (view["queen"]["url"], view["queen"]["pid"]) == (url, None)
        assert [node["node"] for node in view["nodes"]] == ["local"]
        assert "is not encrypted" in status.stderr
        models = user.run("models", "list", RBEE_QUEEN_URL=url)
        assert (models.returncode, "is not encrypted" in models.stderr) == (0, False), models.stderr
        lines = user.run("logs", RBEE_QUEEN_URL=url)
        assert (lines.returncode, "hive" in lines.stdout) == (0, True), lines.stderr
        down = user.run("down", "--queen", url)
        assert down.returncode == 1
        assert f"the queen at {url} is not one of this user on this machine" in down.stderr
        up = user.run("up", "--queen", url)
        assert (up.returncode, "none was started on this machine" in up.stderr) == (0, True)
        assert (instance.find(swarm.home, "queen") is None, user.started()) == (False, False)


def test_a_queen_on_loopback_is_reached_through_a_tunnel_alone(tmp_path: Path, net: Network) -> None:
    with a_queen(tmp_path, "127.0.0.1", "127.0.0.1") as swarm:
        port = swarm.env["RBEE_QUEEN_PORT"]
        user = User(net, tmp_path / "user", swarm)
        refused = user.infer(f"http://{OURS}:{port}")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"no queen answers at http://{OURS}:{port} (connection refused)" in refused.stderr
        assert f"`ssh -N -L 8081:127.0.0.1:{port} {OURS}`" in refused.stderr
        assert "Starting" not in refused.stderr
        assert not user.started()

        sshd = Sshd(tmp_path / "sshd", OURS)
        login = ["-p", str(sshd.port), "-i", str(sshd.key), "-l", sshd.user, "-o", "IdentitiesOnly=yes"]
        quiet = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        forward = ["-o", "ExitOnForwardFailure=yes", "-N", "-L", f"127.0.0.1:8081:127.0.0.1:{port}"]
        with net.node():
            tunnel = subprocess.Popen(
                ["ssh", *login, *quiet, *forward, OURS], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        try:
            url = "http://127.0.0.1:8081"
            wait_until(lambda: user.run("status", "--queen", url).returncode == 0, "the tunnel is open")
            done = user.infer(url)
            assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
            assert "is not encrypted" not in done.stderr
            assert user.unreached() == ["127.0.0.1"]
            down = user.run("down", RBEE_QUEEN_PORT="8081")
            assert (down.returncode, "it is left alone" in down.stderr) == (0, True)
            assert f"kill {tunnel.pid}" not in down.stderr
        finally:
            tunnel.terminate()
            tunnel.wait()
            sshd.stop()
        assert instance.find(swarm.home, "queen") is not None


def test_a_worker_behind_a_firewall_is_left_to_the_queen_and_remembered(tmp_path: Path, net: Network) -> None:
    with a_queen(tmp_path, "0.0.0.0", "0.0.0.0") as swarm:
        net.block_ours(but=int(swarm.env["RBEE_QUEEN_PORT"]))
        user = User(net, tmp_path / "user", swarm)
        for _ in range(2):
            done = user.infer(f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}")
            assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
            assert user.unreached() == [OURS]
        swarm.kill_queen()
        gone = user.infer(f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}")
        assert (gone.returncode, user.started()) == (1, False)
        assert f"`rbee up` on {OURS} starts one" in gone.stderr
        swarm.start_queen()
