"""A daemon whose descriptors are few answers others, though a peer opens more connections than it may have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import msgspec
import pytest

from tests.conftest import ROOT
from tests.kit.local_http import LOCAL
from tests.kit.waiting import PATIENCE

DESCRIPTORS = 200
HALF = b"GET /health HTTP/1.1\r\nHo"


class Limited:
    """A daemon with a limit of descriptors; `limit` is how the shell sets it."""

    def __init__(self, home: Path, role: str, limit: str) -> None:
        self.home = home
        self.role = role
        self.process = subprocess.Popen(
            ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", sys.executable, "-m", "rbee", role, "--announce"],
            cwd=ROOT,
            env=os.environ | {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        with self.process.stdout as announced:
            lines = [msgspec.json.decode(line) for line in announced]
        self.url: str = lines[-1]["ready"]["url"]
        return self

    def __exit__(self, *failure: object) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def health(self) -> str:
        """Ask whether it is there; returns what it says."""
        path = "/health" if self.role == "queen" else "/v1/health"
        return str(httpx.get(self.url + path, timeout=PATIENCE, **LOCAL).json()["status"])

    def log(self) -> list[str]:
        return (self.home / "logs" / f"{self.role}.log").read_text().splitlines()


@pytest.mark.parametrize("role", ["queen", "hive"])
def test_half_a_request_a_thousand_times_keeps_nobody_out(tmp_path: Path, role: str) -> None:
    began = time.monotonic()
    with Limited(tmp_path, role, f"-n {DESCRIPTORS}") as daemon, ExitStack() as stack:
        port = int(daemon.url.rpartition(":")[2])
        for number in range(2 * DESCRIPTORS):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            peer.sendall(HALF)
            if number % DESCRIPTORS == DESCRIPTORS - 1:
                assert daemon.health() in ("ok", "alive")
    lines = daemon.log()
    a_minute_each = 1 + int((time.monotonic() - began) / 60)
    assert 1 <= len([line for line in lines if "oldest idle one is given up" in line]) <= a_minute_each
    assert not [line for line in lines if "Traceback" in line or "EMFILE" in line]


@pytest.mark.parametrize("role", ["queen", "hive"])
def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path: Path, role: str) -> None:
    with Limited(tmp_path, role, f"-S -n {DESCRIPTORS}") as daemon:
        limits = Path(f"/proc/{daemon.process.pid}/limits").read_text().splitlines()
    (line,) = [line for line in limits if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert soft == hard != str(DESCRIPTORS)
