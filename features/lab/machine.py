"""A user's machine, as far as rbee can tell: an empty home, ports of its own, and the built program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import httpx

from tests.kit import processes
from tests.kit.local_http import LOCAL
from tests.kit.ports import hold_port, worker_ports
from tests.kit.waiting import PATIENCE, wait_until

PROGRAM = Path(os.environ.get("RBEE_PYZ", "dist/rbee.pyz")).absolute()
PYTHONS = os.environ.get("RBEE_TEST_PYTHONS", "")
"""Folders, beside PATH, in which build/test.py has put interpreters for the tests."""
NARRATING = ("infer", "models", "setup", "workers")
"""Commands that narrate."""
STANDIN = Path("tests/kit/standin_worker.py").absolute()


def find_python(version: str) -> str | None:
    """Return a CPython of this version, such as 3.12, on the PATH or under pyenv; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), PYTHONS])
    candidates = [
        shutil.which(f"python{version}", path=path),
        *sorted(map(str, pyenv.glob(f"{version}.*/bin/python3"))),
    ]
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return candidate
    return None


def letters(child: subprocess.Popen[bytes], count: int) -> str:
    """Return the next letters of a command's stdout, as soon as they are there, and take no more than those.

    The file object would take what it can get, and `communicate` would not find that.
    """
    assert child.stdout is not None
    found = b""
    while len(found) < count:
        more = os.read(child.stdout.fileno(), count - len(found))
        assert more, found
        found += more
    return found.decode(errors="replace")  # a model of random weights may begin with any byte


class Machine:
    """Runs the program with a home folder of its own, and finds every process that descends from that."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.home = home
        self.python = python
        self.state = home / ".rbee"
        self.queen_port, self.hive_port = hold_port(), hold_port()
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nobody answers there: no test asks the real hub
            "RBEE_QUEEN_PORT": str(self.queen_port),
            "RBEE_HIVE_PORT": str(self.hive_port),
            "RBEE_WORKER_PORT_FROM": str(worker_ports()),
            # Extracting the program once a session is enough.
            "RBEE_CACHE": os.environ.get("RBEE_TEST_CACHE", str(home / ".cache" / "rbee")),
            # What one scenario has computed is not there in the next.
            "RBEE_CACHE_DIR": str(home / ".cache" / "prefixes"),
        }
        self.prefix: list[str] = []
        """What stands before the program's command line: words that run it in other circumstances."""
        self.installed: Path | None = None
        """The program that is run, once one has been installed; before, Python runs the built one."""
        self._children: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        """Return the command line that runs the program."""
        program = [self.python, str(PROGRAM)] if self.installed is None else [str(self.installed)]
        # The scenarios say which steps are shown, and by whom: that is what -v prints.
        verbose = ["-v"] if arguments and arguments[0] in NARRATING else []
        return [*self.prefix, *program, *verbose, *arguments]

    def stand_in(self, *behaviour: str) -> None:
        """Have hives start the stand-in for a worker, which behaves as it is told."""
        self.env["RBEE_WORKER_COMMAND"] = " ".join([self.python, str(STANDIN), *behaviour])

    def run(
        self, *arguments: str | bytes, stdin: bytes | None = None, patience: float = PATIENCE
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the program to its end, which has to come within `patience` seconds."""
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.home,
            capture_output=True,
            timeout=patience,
            check=False,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )

    def start(
        self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command of the program and leave it running; `end` collects it."""
        child = subprocess.Popen(
            self.command(*arguments), env=self.env, cwd=self.home, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
        self._children.append(child)
        return child

    def start_queen(self) -> subprocess.Popen[bytes]:
        """Start `rbee queen`, as a user in another terminal would, and wait until it answers."""
        child = self.start("queen")
        wait_until(self.has_queen)
        return child

    def start_hive(self) -> subprocess.Popen[bytes]:
        """Start `rbee hive` alone, and wait until it answers."""
        child = self.start("hive")
        wait_until(self.has_hive)
        return child

    def has_queen(self) -> bool:
        """Tell whether a queen answers."""
        return self._answers(f"http://127.0.0.1:{self.queen_port}/health")

    def has_hive(self) -> bool:
        """Tell whether a hive answers."""
        return self._answers(f"http://127.0.0.1:{self.hive_port}/v1/health")

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return httpx.get(url, **LOCAL).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def token(self) -> str:
        """The swarm's token, once a daemon has made it."""
        return (self.state / "token").read_text().strip()

    def queen(self) -> httpx.Client:
        """Return a client of the queen; close it with `with`."""
        return self.client(f"http://127.0.0.1:{self.queen_port}", self.token)

    def hive(self) -> httpx.Client:
        """Return a client of the hive; close it with `with`."""
        return self.client(f"http://127.0.0.1:{self.hive_port}", self.token)

    @staticmethod
    def client(url: str, key: str) -> httpx.Client:
        """Return a client of a daemon; close it with `with`."""
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE, **LOCAL)

    def workers(self) -> list[dict[str, Any]]:
        """Return the hive's list of workers."""
        with self.hive() as hive:
            answer = hive.get("/v1/workers/list")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["workers"]
        return found

    def wait_for_worker(self, state: str) -> dict[str, Any]:
        """Return the first worker that comes to be in `state`."""
        found: dict[str, Any] = wait_until(lambda: next((row for row in self.workers() if row["state"] == state), None))
        return found

    def hive_log(self) -> list[dict[str, Any]]:
        """Return the lines of the hive's log."""
        text = (self.state / "logs" / "hive.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def processes(self) -> dict[int, list[str]]:
        """Return pid → command line of every process that runs with this home, ended ones that nobody reaped too."""
        return processes.of_home(self.home)

    def daemons(self) -> dict[int, list[str]]:
        """Return those of them that are daemons: a worker has its chat template rendered in children of its own."""
        return {pid: words for pid, words in self.processes().items() if "chat-template" not in words}

    def worker_processes(self) -> dict[int, list[str]]:
        """Return pid → command line of the workers, stand-ins too."""
        return {pid: words for pid, words in self.processes().items() if "--hive-url" in words}

    def end(self) -> None:
        """End the daemons that a scenario left running as it should; then nothing may be left."""
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self._children:
            child.communicate(timeout=PATIENCE)
        wait_until(lambda: not self.processes(), "processes are left", 15)

    def kill(self) -> None:
        """End whatever runs here for good, so that a failed scenario harms no other."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for child in self._children:
            child.communicate()
