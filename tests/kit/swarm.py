"""A swarm of real processes: a queen in the background, clients of both kinds, and what the system knows of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import psutil

from rbee.adapters.daemon import instance, process
from tests.conftest import ROOT
from tests.kit import processes
from tests.kit.local_http import LOCAL
from tests.kit.ports import hold_port, worker_ports
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def role_of(words: list[str]) -> str:
    """Return the role that a command line plays; a stand-in is started with a worker's options."""
    if "--hive-url" in words:
        return "worker"
    return words[3] if len(words) > 3 else ""


class Running(NamedTuple):
    """A process of the swarm."""

    role: str
    identity: process.Identity
    is_zombie: bool


def processes_of(home: Path) -> list[Running]:
    """Return every process of a state folder, and every zombie that one of them has to reap."""
    mark = f"RBEE_HOME={home}"
    found: list[Running] = []
    zombies: list[tuple[int, int]] = []
    for pid in processes.all_pids():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            state, parent = processes.read(pid, "stat").rpartition(")")[2].split()[:2]
            if state == "Z":
                zombies.append((pid, int(parent)))
            elif mark in processes.read(pid, "environ").split("\0"):
                words = processes.read(pid, "cmdline").split("\0")
                if (identity := process.identify(pid)) is not None:
                    found.append(Running(role_of(words), identity, False))
    mine = {running.identity.pid for running in found}
    return found + [Running("", process.Identity(pid, 0, ""), True) for pid, parent in zombies if parent in mine]


def stored_workers(home: Path) -> list[dict[str, Any]]:
    """Return the rows of a hive's table; of a copy, because a second connection could spoil the original."""
    copy = home / "copy"
    copy.mkdir(exist_ok=True)
    for name in ("models.db", "models.db-wal"):
        (copy / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copy(home / name, copy / name)
    (copy / "models.db-shm").unlink(missing_ok=True)
    connection = sqlite3.connect(copy / "models.db")
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM workers")]
    finally:
        connection.close()


def said_by(row: dict[str, Any]) -> str:
    """Return the state in which a worker says that it is; nothing when it does not answer."""
    try:
        return str(httpx.get(f"{row['url']}/v1/ready", **LOCAL).json()["state"])
    except (httpx.TransportError, httpx.UnsupportedProtocol):
        return ""


class Client:
    """Somebody who asked for text: what has come of it, and how it ended.

    `outcome` is `complete`, `error` with the words in `said`, or `broken` where the connection ended in a way that
    clients take for an error; anything else is a fault of ours.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.outcome = ""
        self.said = ""
        self.is_placed = threading.Event()
        self.ended = threading.Event()

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome or 'waits'}{f' ({self.said})' if self.said else ''}"


class Keeper(Client):
    """`rbee infer` as a process."""

    def __init__(self, env: dict[str, str], arguments: tuple[str, ...], tokens: int, *, prompt: str | None) -> None:
        super().__init__("keeper")
        self._tokens = tokens
        self.errors = ""
        command = [sys.executable, "-m", "rbee", "infer", "-v", "--temperature", "0", "--max-tokens", str(tokens)]
        self.process = subprocess.Popen(
            [*command, *arguments, *([] if prompt is None else ["--prompt", prompt])],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if prompt is not None:
            self.ask("")
        self._threads = [threading.Thread(target=read) for read in (self._read_text, self._read_errors)]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._wait).start()

    def ask(self, prompt: str) -> None:
        """Write the prompt to its stdin."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(prompt.encode())
            self.process.stdin.close()

    def _read_text(self) -> None:
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 65536):
            self.text += piece.decode()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line.decode()
            if b"called back" in line or b"runs on local already" in line:
                self.is_placed.set()

    def _wait(self) -> None:
        for thread in self._threads:
            thread.join()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        told = [line.removeprefix("rbee: ") for line in self.errors.splitlines() if line.startswith("rbee: ")]
        if code == 0 and self.text.endswith("\n") and len(self.text) == self._tokens + 1 and not told:
            self.outcome = "complete"
        elif code == 1 and len(told) == 1 and "Traceback" not in self.errors:
            self.outcome, self.said = "error", told[0]
        elif code < 0 or code == 128 + signal.SIGTERM:
            self.outcome = f"ended by {signal.Signals(-code if code < 0 else code - 128).name}"
        else:
            self.outcome = f"exit code {code}, {len(self.text)} characters, {self.errors!r}"
        self.ended.set()


class Relayed(Client):
    """A client that has its answer passed on by the queen."""

    def __init__(self, queen: httpx.Client, model: str, tokens: int, prompt: str) -> None:
        super().__init__("relay")
        self._queen = queen
        self._tokens = tokens
        self._task = {"prompt": prompt, "model": model, "max_tokens": tokens, "temperature": 0, "relay": True}
        threading.Thread(target=self._run).start()

    def _run(self) -> None:
        try:
            self._read()
        except httpx.TransportError as exc:
            self.outcome, self.said = "broken", f"{type(exc).__name__}: {exc}"
        finally:
            self._queen.close()
            self.ended.set()

    def _read(self) -> None:
        last: dict[str, Any] = {}
        name, is_over = "", False
        with self._queen.stream(
            "POST", "/v2/tasks", json=self._task, headers={"Accept": "text/event-stream"}
        ) as response:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line == "data: [DONE]":
                    is_over = True
                elif line.startswith("data: "):
                    if name == "worker":
                        self.is_placed.set()
                    last, name = json.loads(line.removeprefix("data: ")), ""
                    self.text += last.get("token", "")
        if is_over and "error" in last:
            self.outcome, self.said = "error", f"{last['error']['code']}: {last['error']['message']}"
        elif is_over and last.get("done") and last["total_tokens"] == self._tokens == len(self.text):
            self.outcome = "complete"
        else:
            self.outcome = f"cut off after {last}"


def told(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a command with the option that has each step printed, for the commands that narrate."""
    return ("-v", *arguments) if arguments[:1] in (("infer",), ("models",), ("setup",), ("workers",)) else arguments


class Swarm:
    """A queen that stays, in a state folder of its own, with what it starts."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.program = [sys.executable, "-m", "rbee"]
        self.cwd = ROOT
        self.is_told = True
        """Whether `run` has each step printed; earlier builds have no option for that, and print them."""
        self.env = os.environ | {
            "RBEE_HOME": str(home),
            "RBEE_CACHE_DIR": str(home / "prefixes"),
            "RBEE_QUEEN_PORT": str(hold_port()),
            # Each as it is by default: the next daemon of a role listens where the one before did.
            "RBEE_HIVE_PORT": str(hold_port()),
            "RBEE_WORKER_PORT_FROM": str(worker_ports()),
            "RBEE_WORKER_THREADS": "1",
            "PYTHONWARNINGS": "default",
            **environment,
        }
        self.clients: list[Client] = []
        self._queens: list[subprocess.Popen[bytes]] = []

    # What a user does.

    def start_queen(self) -> psutil.Process:
        """Start `rbee queen` as in another terminal, and wait until it answers."""
        child = subprocess.Popen(
            [*self.program, "queen", "--announce"],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._queens.append(child)
        assert child.stdout is not None
        with child.stdout as announced:
            assert b'"ready"' in announced.read()
        return psutil.Process(child.pid)

    def stop_queen(self) -> None:
        """End the queen that runs, and forget it."""
        queen = self._queens.pop()
        queen.terminate()
        assert queen.wait(PATIENCE) == 0

    def end_worker(self, worker_id: str) -> None:
        """Have the hive of this host end a worker; returns once it is gone."""
        hive = self.hive()
        assert hive is not None
        with self._client(hive.url) as client:
            assert client.delete(f"/v1/workers/{worker_id}").status_code == 202
        wait_until(lambda: all(row["id"] != worker_id for row in self.listed() or ()), "the worker is gone")

    def kill_queen(self) -> None:
        """Kill the queen that runs, and forget it."""
        queen = self._queens.pop()
        queen.kill()
        queen.wait()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*self.program, *(told(arguments) if self.is_told else arguments)],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "rbee", *told(arguments)],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, model: str, tokens: int, *, prompt: str | None = "A") -> Keeper:
        """Begin `rbee infer`; without a prompt it waits for one on its stdin."""
        keeper = Keeper(self.env, ("--model", model), tokens, prompt=prompt)
        self.clients.append(keeper)
        return keeper

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers of all nodes."""
        with self.client() as queen:
            found: list[dict[str, Any]] = queen.get("/v2/workers/list").json()["workers"]
        return found

    def relay(self, model: str, tokens: int) -> Relayed:
        """Begin a request whose answer comes through the queen."""
        relayed = Relayed(self.client(), model, tokens, "A")
        self.clients.append(relayed)
        return relayed

    def client(self) -> httpx.Client:
        """Return a client of the queen."""
        return self._client(f"http://127.0.0.1:{self.env['RBEE_QUEEN_PORT']}")

    def _client(self, url: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}
        return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE, **LOCAL)

    # What the registry says.

    def hive(self) -> instance.Instance | None:
        """Return the hive that runs."""
        return instance.find(self.home, "hive")

    def listed(self) -> list[dict[str, Any]] | None:
        """Return the hive's list of workers; None without a hive that answers."""
        if (hive := self.hive()) is None:
            return None
        with self._client(hive.url) as client, suppress(httpx.TransportError):
            found: list[dict[str, Any]] = client.get("/v1/workers/list").json()["workers"]
            return found
        return None

    def stored(self) -> list[dict[str, Any]]:
        """Return the rows of the hive's table."""
        return stored_workers(self.home)

    # What really runs.

    def processes(self) -> list[Running]:
        """Return every process of this state folder, and every zombie that one of them has to reap."""
        return processes_of(self.home)

    def find(self, role: str) -> process.Identity | None:
        """Return the process that plays a role, if one does."""
        return next((one.identity for one in self.processes() if one.role == role), None)

    def differences(self) -> list[str]:
        """Say in what registry and reality differ; nothing when they agree."""
        running = self.processes()
        workers = {one.identity.pid: one.identity.started_at for one in running if one.role == "worker"}
        rows = self.stored()
        told = [f"zombie {one.identity.pid}" for one in running if one.is_zombie]
        stored = {row["pid"]: row["started_at"] for row in rows}
        if stored != workers:
            told.append(f"stored {stored}, running {workers}")
        if (hive := self.hive()) is not None:
            listed = self.listed()
            if listed is None:
                told.append("the hive does not answer")
            else:
                fields = ("id", "pid", "url", "state", "slots_total", "slots_available")
                one, other = ([tuple(row[field] for field in fields) for row in table] for table in (listed, rows))
                if sorted(one) != sorted(other):
                    told.append(f"listed {one}, stored {other}")
                told += [
                    f"listed {row['state']}, is {state}" for row in listed if (state := said_by(row)) != row["state"]
                ]
        known = {queen.pid for queen in self._queens} | set(stored)
        known |= {client.process.pid for client in self.clients if isinstance(client, Keeper)}
        # A keeper may have started a queen of its own.
        known |= {daemon.identity.pid for daemon in (hive, instance.find(self.home, "queen")) if daemon is not None}
        told += [
            f"orphan {one.role} {one.identity.pid}"
            for one in running
            if one.identity.pid not in known and not one.is_zombie
        ]
        return told

    def tracebacks(self) -> list[str]:
        """Return the lines of the logs that show a fault of ours."""
        texts = [path.read_text() for path in (self.home / "logs").glob("*.log*")]
        return [line for text in texts for line in text.splitlines() if "raceback" in line]

    # How it ends.

    def end(self, *, killed: bool = False) -> None:
        """End the queen, if it still runs, as a user would; nothing may be left. `killed` says how it ended else."""
        for queen in self._queens:
            if queen.poll() is None:
                queen.terminate()
            assert queen.wait(PATIENCE) == (-signal.SIGKILL if killed else 0)
        wait_until(lambda: not self.processes(), "processes are left")

    def kill(self) -> None:
        """Leave nothing behind, however the test went."""
        for running in self.processes():
            process.send_signal(running.identity, signal.SIGCONT)
            process.send_signal(running.identity, signal.SIGKILL)
        for queen in self._queens:
            queen.kill()
            queen.wait()
        for client in self.clients:
            client.ended.wait(PATIENCE)
