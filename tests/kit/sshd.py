"""Real OpenSSH servers on loopback addresses, each with its own home folder: one machine plays many."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests.kit.ports import hold_port
from tests.kit.waiting import wait_until

LISTENS: Final = b"Server listening on"
PROGRAM: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def why_not() -> str | None:
    """Say why no sshd can let us in here; None where one can."""
    if PROGRAM is None or shutil.which("ssh-keygen") is None:
        return "needs OpenSSH's server and client: apt install openssh-server"
    try:
        account = pwd.getpwuid(os.geteuid())
    except KeyError:
        return f"needs an account: user {os.geteuid()} has none here"
    if Path(account.pw_shell).name in ("nologin", "false"):
        return f"needs an account with a login shell, and {account.pw_name} has {account.pw_shell}"
    return None


class Sshd:
    """An sshd at `address`; a user who logs in with `key` finds `home`."""

    def __init__(self, folder: Path, address: str = "127.0.0.2", **options: str) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self.folder = folder
        self.address = address
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.key = folder / "user_key"
        self.host_key = folder / "host_key"
        for file in (self.key, self.host_key):
            _make_key(file)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.log = folder / "sshd.log"
        self.port = hold_port(address)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, at the same port each time; returns once it answers."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 (its privilege separation folder)
        settings = {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(self.key.with_suffix(".pub")),
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "yes",
            "PrintMotd": "no",
            "LogLevel": "VERBOSE",
            "MaxStartups": "100",
            "MaxSessions": "100",
            "SetEnv": f'"HOME={self.home}"',
            "Subsystem": "sftp internal-sftp",
        } | self._options
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                [PROGRAM or "", "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        # No connection tells: one may be made to what an earlier server has left behind, and leaves a process itself.
        deadline = time.monotonic() + 10
        while LISTENS not in self.log.read_bytes()[begin:]:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The server's own process; each connection has one of its own below it."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server; connections that are open go on, as they do when sshd is stopped."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None
            # What it forked for a connection just now has the listening socket too, until it comes to close it.
            wait_until(lambda: not _is_listened_at(self.address, self.port), "nobody listens there any more")

    def restart(self, **options: str) -> None:
        """Start it anew with other settings."""
        self.stop()
        self._options |= options
        self.start()

    def new_host_key(self) -> None:
        """Give the server another host key at its next start."""
        for file in (self.host_key, self.host_key.with_suffix(".pub")):
            file.unlink()
        _make_key(self.host_key)

    @property
    def public_key(self) -> str:
        """Its host key in the one-line form without a comment."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of its host key, as OpenSSH's own tool tells it."""
        command = ["ssh-keygen", "-lf", str(self.host_key.with_suffix(".pub"))]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]


def _is_listened_at(address: str, port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, port))
        except OSError as exc:
            return exc.errno == errno.EADDRINUSE  # an address of another network namespace is none of ours
    return False


def _make_key(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)], check=True)
