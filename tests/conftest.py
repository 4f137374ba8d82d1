"""What tests of every kind share: a clean environment, servers in this process, daemons in processes of their own."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import psutil
import pytest

from tests.kit import samples, schedule
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Generator, Iterator

    import trio
    from quart_trio import QuartTrio

ROOT = Path(__file__).resolve().parent.parent

# The machine may be busy with other work: an example that takes long proves nothing.
hypothesis.settings.register_profile("rbee", deadline=None, max_examples=samples.FEW, database=None)
hypothesis.settings.register_profile("full", parent=hypothesis.settings.get_profile("rbee"), max_examples=samples.MANY)
hypothesis.settings.load_profile("rbee")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every case of what is slow by nature")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--full"):
        hypothesis.settings.load_profile("full")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without collecting garbage: they stay, and looking at them again and again takes a third of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests where several processes share them."""
    if hasattr(config, "workerinput"):
        schedule.arrange(items)


@pytest.fixture(autouse=True, scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the user's home, settings or certificates."""
    with pytest.MonkeyPatch.context() as patch:
        # Reading a company's bundle takes 25 ms for each variable that names it: at every download.
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("RBEE_") and name != "RBEE_PYZ"]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there: no test asks the real hub
        yield


@pytest.fixture
async def serve_app(nursery: trio.Nursery) -> AsyncIterator[Callable[[QuartTrio], Awaitable[str]]]:
    """Give a function that serves an application on a port of its own and returns its URL."""
    from rbee.adapters.http import server as http_server

    servers: list[http_server.Server] = []

    async def start(app: QuartTrio) -> str:
        listener = http_server.bind("127.0.0.1", 0)
        server = http_server.Server(app, listener)
        await nursery.start(server.run)
        servers.append(server)
        return http_server.base_url(listener)

    yield start
    for server in servers:
        await server.stop()


class Daemon:
    """A queen or hive in a process of its own, with a state folder of its own."""

    def __init__(self, home: Path, role: str, *arguments: str, cwd: Path = ROOT, **environment: str) -> None:
        self.home = home
        self.role = role
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rbee", role, "--announce", *arguments],
            cwd=cwd,
            env=self._environment(home) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.announced: list[dict[str, Any]] = []
        self.url = ""

    @staticmethod
    def _environment(home: Path) -> dict[str, str]:
        return os.environ | {
            "RBEE_HOME": str(home),
            "RBEE_QUEEN_PORT": "0",
            "RBEE_HIVE_PORT": "0",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
        }

    def wait_ready(self) -> Daemon:
        """Read its announcements until it is ready or has failed; stdout is read to its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.announced.append(json.loads(line))
        ready = [line["ready"] for line in self.announced if "ready" in line]
        self.url = ready[0]["url"] if ready else ""
        return self

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that has the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **LOCAL, **options)

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of its log."""
        return [json.loads(line) for line in (self.home / "logs" / f"{self.role}.log").read_text().splitlines()]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 20) -> tuple[int, str]:
        """Return exit code and stderr once it has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors.decode()

    def close(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Daemons:
    """Starts daemons, and ends whatever of them is left."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[Daemon] = []
        self._homes = {home}

    def start(
        self, role: str, *arguments: str, home: Path | None = None, cwd: Path = ROOT, **environment: str
    ) -> Daemon:
        """Start a daemon and wait until it is ready or has failed."""
        return self.launch(role, *arguments, home=home, cwd=cwd, **environment).wait_ready()

    def launch(
        self, role: str, *arguments: str, home: Path | None = None, cwd: Path = ROOT, **environment: str
    ) -> Daemon:
        """Start a daemon without waiting for it."""
        self._homes.add(home or self.home)
        daemon = Daemon(home or self.home, role, *arguments, cwd=cwd, **environment)
        self._started.append(daemon)
        return daemon

    def left(self) -> list[psutil.Process]:
        """Return the processes that belong to these state folders."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("RBEE_HOME") in {str(home) for home in self._homes}:
                    found.append(process)
        return [process for process in found if process.pid != os.getpid()]

    def close(self) -> None:
        for daemon in self._started:
            daemon.close()
        for process in self.left():
            with suppress(psutil.Error):
                process.kill()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Start daemons whose state is in a folder of this test."""
    found = Daemons(tmp_path / "rbee")
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared_daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """Start daemons that the tests of one module share."""
    found = Daemons(tmp_path_factory.mktemp("shared") / "rbee")
    yield found
    found.close()


Cell = Callable[[str, str, str, str], None]
"""Puts a figure into a table that is printed after the tests: title, row, column, figure."""


@pytest.fixture
def cell(record_property: Callable[[str, object], None]) -> Cell:
    """Give a function that puts a figure into a table; see `Cell`."""
    return lambda title, row, column, figure: record_property("cell", (title, row, column, figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests have filled in."""
    tables: dict[str, dict[str, dict[str, str]]] = {}
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for name, value in [entry for report in reports for entry in getattr(report, "user_properties", ())]:
        if name == "cell":
            title, row, column, figure = value
            tables.setdefault(title, {}).setdefault(row, {})[column] = figure
    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        lines = [
            ["", *columns],
            *([row, *(found.get(column, "-") for column in columns)] for row, found in rows.items()),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        terminalreporter.section(title)
        for row, *figures in lines:
            cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
            terminalreporter.write_line("  ".join([row.ljust(widths[0]), *cells]))
