"""A user's home folder with ssh's files in it, which OpenSSH's own client and rbee are both made to read."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.sshd import Sshd


class SshHome:
    """The home folder `path`; what OpenSSH would look for in the account's own is named in the settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ssh = path / ".ssh"
        self.ssh.mkdir(parents=True)
        self.known_hosts = self.ssh / "known_hosts"

    def configure(self, text: str) -> None:
        """Write the settings; keys and known hosts are this home's."""
        usual = (
            f"Host *\n UserKnownHostsFile {self.known_hosts}\n GlobalKnownHostsFile none\n IdentityFile {self.ssh}/id\n"
        )
        (self.ssh / "config").write_text(f"{text}\n{usual}")

    def know(self, *servers: Sshd) -> None:
        """Have the user know these servers."""
        lines = [f"[{server.address}]:{server.port} {server.public_key}\n" for server in servers]
        self.known_hosts.write_text("".join(lines))

    def asks_nothing(self, name: str, *options: str) -> bool:
        """Whether OpenSSH's client reaches the machine without a question."""
        command = ["ssh", "-F", self.ssh / "config", "-o", "BatchMode=yes", *options, "--", name, "true"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        return done.returncode == 0


def keygen(*arguments: str | Path) -> None:
    """Run ssh-keygen."""
    subprocess.run(["ssh-keygen", "-q", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def agent(path: Path) -> Iterator[dict[str, str]]:
    """Run an agent at a socket; yields the environment in which ssh-add finds it."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + 10
            while not path.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield {"SSH_AUTH_SOCK": str(path)}
        finally:
            running.terminate()


def add(environment: dict[str, str], *files: Path, passphrase: str = "", folder: Path | None = None) -> None:
    """Give key files to the agent."""
    if passphrase:
        assert folder is not None
        ask = folder / "askpass"
        ask.write_text(f"#!/bin/sh\necho {passphrase}\n")
        ask.chmod(0o700)
        environment = environment | {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(
        ["ssh-add", "-q", *files], env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
