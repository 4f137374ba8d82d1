"""Another machine, as far as rbee can tell: an sshd at a loopback address of its own, with the program in place."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from rbee.adapters.daemon import process
from tests.conftest import ROOT
from tests.kit import processes
from tests.kit.local_http import LOCAL
from tests.kit.paths import STANDIN_WORKER
from tests.kit.ports import own_address, worker_ports
from tests.kit.sshd import Sshd
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.wire.registry import Tunnel
    from tests.kit.swarm import Swarm

TEXT = ("--prompt", "Once upon a time", "--max-tokens", "4", "--temperature", "0")
PROGRAM = """\
import sys
sys.path.insert(0, {root!r})
{before}
from rbee.entry import main
sys.exit(main())
"""


class RemoteNode:
    """A node called `name`; its hive listens at the usual port of its address."""

    def __init__(self, folder: Path, name: str = "workstation", address: str | None = None, **sshd: str) -> None:
        self.name = name
        self.address = address or own_address()
        self.sshd = Sshd(folder, self.address, **sshd)
        self.home = self.sshd.home
        self.install = folder / "rbee"
        (self.install / "bin").mkdir(parents=True)
        (self.install / "state").mkdir(mode=0o700)
        self._script("rbee-python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        self.install_program()
        self.settings: dict[str, dict[str, Any]] = {
            "paths": {"state_dir": str(self.install / "state")},
            "auth": {"token_file": str(self.install / "token")},
            "worker": {"port_from": worker_ports(), "threads": 1},
        }
        self.configure()

    def install_program(self, before: str = "") -> None:
        """Put the program of this checkout in its place; `before` is Python that runs first."""
        self._script("rbee", PROGRAM.format(root=str(ROOT), before=before))

    def _script(self, name: str, text: str) -> None:
        path = self.install / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def configure(self, **settings: dict[str, Any]) -> None:
        """Write the node's configuration, with these changes to it."""
        for section, values in settings.items():
            self.settings.setdefault(section, {}).update(values)
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        Path(self.config).write_text("\n".join(lines) + "\n")

    def stand_in(self, *behaviour: str) -> None:
        """Have its hive start the stand-in for a worker, which behaves as it is told."""
        self.configure(worker={"command": [sys.executable, str(STANDIN_WORKER), *behaviour]})

    def give_token(self, home: Path) -> None:
        """Bring the swarm's token there, as an installation does."""
        (self.install / "token").write_bytes((home / "token").read_bytes())

    def description(self, tunnel: Tunnel = "auto") -> dict[str, Any]:
        """Return what a user says of it to the queen."""
        return {
            "node_name": self.name,
            "ssh_host": self.address,
            "ssh_port": self.sshd.port,
            "ssh_user": self.sshd.user,
            "ssh_key_path": str(self.sshd.key),
            "install_path": str(self.install),
            "accept_host_key": self.sshd.fingerprint,
            "tunnel": tunnel,
        }

    def command(self, *arguments: str) -> list[str]:
        """Return the command line with which a user there runs the program of this installation."""
        return [str(self.install / "bin/rbee-python"), str(self.install / "bin/rbee"), *arguments]

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user there."""
        return {"HOME": str(self.home), "PATH": os.environ["PATH"]}

    def processes(self, role: str) -> list[process.Identity]:
        """Return the processes of a role that run there."""
        found = []
        for pid, words in processes.of_home(self.home).items():
            plays = "worker" if "--hive-url" in words else "hive" if "hive" in words[2:4] else ""
            if plays == role and (identity := process.identify(pid)) is not None:
                found.append(identity)
        return found

    @property
    def config(self) -> str:
        """The configuration of this installation."""
        return str(self.install / "config.toml")

    @contextmanager
    def users_hive(self, *options: str, address: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Have a user there start its hive; the block begins when it answers, and it ends however the block does."""
        command = self.command("hive", "--host", address or self.address, "--config", self.config, *options)
        with subprocess.Popen(command, env=self.env) as hive:
            try:
                wait_until(lambda: self.answers(address), "the user's hive answers")
                yield hive
            finally:
                hive.terminate()

    def signal_hive(self, number: signal.Signals) -> None:
        """Send a signal to the one hive that runs there."""
        os.kill(self.hive_pid, number)

    @property
    def hive_pid(self) -> int:
        """The one hive that runs there."""
        (hive,) = self.processes("hive")
        return hive.pid

    def answers(self, address: str | None = None) -> bool:
        """Tell whether a hive answers there."""
        try:
            url = f"http://{address or self.address}:9200/v1/health"
            return httpx.get(url, **LOCAL, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def hive(self, home: Path) -> httpx.Client:
        """Return a client of its hive, with the token in `home`."""
        headers = {"Authorization": f"Bearer {(home / 'token').read_text().strip()}"}
        return httpx.Client(base_url=f"http://{self.address}:9200", headers=headers, timeout=30, **LOCAL)

    def wait_empty(self, seconds: float = 30) -> None:
        """Return once nothing of rbee runs there any longer."""
        wait_until(lambda: not self.processes("hive") + self.processes("worker"), "processes are left", seconds)

    def close(self) -> None:
        """Leave nothing behind, however the test went."""
        for running in self.processes("hive") + self.processes("worker"):
            process.send_signal(running, signal.SIGCONT)
            process.send_signal(running, signal.SIGKILL)
        self.sshd.stop(signal.SIGKILL)


def register(swarm: Swarm, node: RemoteNode, **changes: Any) -> None:
    """Register the node with a queen that runs, as after an installation."""
    with swarm.client() as queen:
        answer = queen.post("/v2/registry/beehives/add", json=node.description(**changes))
    assert answer.status_code == 200, answer.text
    node.give_token(swarm.home)


def infer(swarm: Swarm, node: RemoteNode, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `rbee infer` on the node to its end."""
    return swarm.run("infer", "--node", node.name, *TEXT, *more)


def rows(swarm: Swarm) -> list[dict[str, Any]]:
    """Return the registry's rows."""
    with swarm.client() as queen:
        found: list[dict[str, Any]] = queen.get("/v2/registry/beehives/list").json()["nodes"]
    return found


def row(swarm: Swarm) -> dict[str, Any]:
    """Return the registry's only row."""
    (found,) = rows(swarm)
    return found
