"""Other machines of the user, as far as rbee can tell: each a real sshd on a loopback address, with its own home."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from features.lab.machine import PROGRAM
from tests.kit import processes
from tests.kit.local_http import LOCAL
from tests.kit.ports import own_address
from tests.kit.sshd import Sshd
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine

HIVE_PORT = 9200


class Node:
    """A machine that runs sshd; `address` is where it is reached, and where its hive then listens.

    `env` is what sessions find in their environment, `options` stand in its sshd_config.
    """

    def __init__(self, folder: Path, name: str, env: dict[str, str] | None = None, **options: str) -> None:
        self.name = name
        folder.mkdir(parents=True)
        # The tests' own Python comes first, for it need not be where the system looks; not that of .venv.
        self.path = f"{sys.base_exec_prefix}/bin:/usr/bin:/bin"
        variables = {"HOME": str(folder / "home"), "PATH": self.path} | (env or {})
        options.setdefault("SetEnv", " ".join(f'"{name}={value}"' for name, value in variables.items()))
        self.sshd = Sshd(folder, own_address(), **options)
        self.address = self.sshd.address
        self.home = self.sshd.home
        self.install = self.home / ".local" / "share" / "rbee" / "node"
        self.url = f"http://{self.address}:{HIVE_PORT}"

    @property
    def description(self) -> list[str]:
        """The options of `setup add-node` that say how it is reached."""
        sshd = self.sshd
        reached = ["--ssh-host", self.address, "--ssh-port", str(sshd.port), "--ssh-user", sshd.user]
        return [*reached, "--ssh-key", str(sshd.key)]

    def register(self, machine: Machine, *options: str) -> None:
        """Register it with the user's queen, or one for that command."""
        accept = ["--accept-host-key", self.sshd.fingerprint]
        done = machine.run("setup", "add-node", "--name", self.name, *self.description, *accept, *options)
        assert done.returncode == 0, done.stderr.decode()

    def bring_rbee(self, machine: Machine) -> None:
        """Install rbee there, the way a user does, where the same version has run before.

        A machine that has not yet seen it unpacks 26 MB and compiles every module: seconds of processor time.
        """
        self.install.joinpath("bin").mkdir(parents=True)
        shutil.copy(PROGRAM, self.install / "bin" / "rbee")
        (self.install / "cache").mkdir()
        (self.install / "cache" / "pyz").symlink_to(Path(machine.env["RBEE_CACHE"]) / "pyz")
        done = machine.run("setup", "install", "--node", self.name)
        assert done.returncode == 0, done.stderr.decode()

    def hive(self, machine: Machine) -> httpx.Client:
        """Return a client of its hive; close it with `with`."""
        return machine.client(self.url, machine.token)

    def has_hive(self) -> bool:
        """Tell whether a hive answers there."""
        try:
            return httpx.get(f"{self.url}/v1/health", **LOCAL).status_code == 200
        except httpx.TransportError:
            return False

    def processes(self) -> dict[int, list[str]]:
        """Return pid → command line of every process that runs with its home."""
        return processes.of_home(self.home)

    def daemons(self, role: str) -> dict[int, list[str]]:
        """Return pid → command line of its hives or workers."""
        mark = {"hive": "--started-by", "worker": "--hive-url"}[role]
        return {pid: words for pid, words in self.processes().items() if mark in words}

    def kill(self) -> None:
        """End whatever runs there for good, and sshd."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sshd.stop()


class Nodes:
    """The nodes of one scenario, made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: dict[str, Node] = {}

    def add(self, name: str, env: dict[str, str] | None = None, **options: str) -> Node:
        """Make a node."""
        assert name not in self._nodes
        node = self._nodes[name] = Node(self._folder / name, name, env, **options)
        return node

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def end(self) -> None:
        """Nothing may be left on any of them, once the machines that used them have ended."""
        wait_until(
            lambda: not [words for node in self._nodes.values() for words in node.processes().values()],
            "processes are left on a node",
        )

    def kill(self) -> None:
        """End all of them."""
        for node in self._nodes.values():
            node.kill()
