"""A daemon as a service: what it tells the manager that started it, and that nothing it starts speaks for it."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.kit.local_http import LOCAL
from tests.kit.standins import standin

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
CREDENTIALS = struct.Struct("3i")


class Manager:
    """Starts one daemon as a service manager does, and reads what it is told."""

    def __init__(self, folder: Path, role: str, *arguments: str) -> None:
        self.home = folder / "rbee"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(20)
        self._socket.bind(str(folder / "notify"))
        environment = {
            "RBEE_HOME": str(self.home),
            "RBEE_QUEEN_PORT": "0",
            "RBEE_HIVE_PORT": "0",
            "RBEE_WORKER_COMMAND": standin("well"),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "500000",
        }
        self.service = subprocess.Popen(
            [sys.executable, "-m", "rbee", role, *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def next(self) -> tuple[dict[str, str], int]:
        """Return the next message, and the pid of the process that sent it."""
        message, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        pid, _, _ = CREDENTIALS.unpack(ancillary[0][2])
        return dict(line.split("=", 1) for line in message.decode().splitlines()), pid

    def has_been_told_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self.next()
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()
        for process in psutil.process_iter():
            try:
                if process.environ().get("RBEE_HOME") == str(self.home):
                    process.kill()
            except psutil.Error:
                continue
        self.service.communicate()


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Any]:
    """Give a function that starts a daemon as a service."""
    managers: list[Manager] = []

    def start(role: str, *arguments: str) -> Manager:
        managers.append(Manager(tmp_path, role, *arguments))
        return managers[-1]

    yield start
    for manager in managers:
        manager.close()


@pytest.mark.parametrize("role", ["queen", "hive"])
def test_a_daemon_tells_its_start_its_life_and_its_end(managed: Any, role: str) -> None:
    manager = managed(role)
    pid = manager.service.pid
    first, sender = manager.next()
    assert (first["READY"], sender) == ("1", pid)
    url = first["STATUS"].rpartition(" ")[2]
    health = httpx.get(url + ("/health" if role == "queen" else "/v1/health"), **LOCAL)
    assert health.status_code == 200, "it answers by the time that it says so"
    for _ in range(3):
        assert manager.next() == ({"WATCHDOG": "1"}, pid)
    manager.service.send_signal(signal.SIGTERM)
    while (last := manager.next()) == ({"WATCHDOG": "1"}, pid):
        pass
    assert last[1] == pid
    assert last[0]["STOPPING"] == "1"
    assert int(last[0]["EXTEND_TIMEOUT_USEC"]) == 70_000_000, "drain, cascade and a margin"
    out, err = manager.service.communicate(timeout=20)
    begun, ending = err.decode().splitlines()  # for the journal
    assert (out, begun.startswith(f"The {role} answers at {url}; "), ending.startswith("Ending ")) == (b"", True, True)
    assert manager.service.returncode == 0


def test_a_daemon_that_another_one_started_is_no_service(managed: Any) -> None:
    manager = managed("queen", "--announce")
    assert manager.service.stdout is not None
    assert b'"ready"' in manager.service.stdout.readline()
    manager.service.send_signal(signal.SIGTERM)
    assert manager.service.wait(20) == 0
    assert manager.has_been_told_nothing()


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="a model's header is read by the engine")
def test_nothing_below_a_service_speaks_for_it(managed: Any) -> None:
    manager = managed("queen")
    url = manager.next()[0]["STATUS"].rpartition(" ")[2]
    token = (manager.home / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    task = {"prompt": "Once", "model": "builtin:bee-stories"}
    answer = httpx.post(f"{url}/v2/tasks", json=task, headers=headers, timeout=30, **LOCAL)
    assert answer.status_code == 200, answer.text
    below = psutil.Process(manager.service.pid).children(recursive=True)
    assert len(below) == 2, "a hive, and its worker"
    for process in below:
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(process.environ())
    manager.service.send_signal(signal.SIGTERM)
    senders = set()
    while manager.service.poll() is None:
        message, sender = manager.next()
        senders.add(sender)
        if "STOPPING" in message:
            break
    assert senders == {manager.service.pid}
    assert manager.service.wait(20) == 0
