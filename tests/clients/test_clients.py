"""Other people's clients at a real queen with a real worker: each does what it is made for, and finds what it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cell

PROGRAMS: Final = Path(__file__).parent / "programs"
SECONDS: Final = 500
"""For all jobs of a client."""
FEW: Final = os.environ.get("RBEE_TEST_CLIENTS", "")
"""The Python of an environment with the clients that every run tries; build/test.py makes it, and the others."""
ALL: Final = os.environ.get("RBEE_TEST_ALL_CLIENTS", "")
NODE: Final = os.environ.get("RBEE_TEST_NODE", "")
SMOLLM2: Final = os.environ.get("RBEE_TEST_MODEL", "")


class Client(NamedTuple):
    """A program that does jobs with a client, and what it needs: another program, or what build/test.py makes."""

    command: tuple[str, ...]
    jobs: tuple[str, ...]
    programs: tuple[str, ...] = ()
    is_full: bool = False


CLIENTS: Final = {
    "openai": Client(
        (FEW, "openai_sync.py"),
        (
            "whole",
            "stream",
            "helper",
            "parse",
            "parse, streamed",
            "tool, streamed",
            "tool loop",
            "choices",
            "stop",
            "completions",
            "models",
            "errors",
            "no key",
        ),
    ),
    "openai, async": Client((FEW, "openai_async.py"), ("together", "stream", "parse", "left")),
    "curl": Client(
        ("bash", "curl.sh"), ("whole", "stream", "models", "model", "error", "without a type"), ("curl", "jq")
    ),
    "openai, Node": Client(
        ("node", "openai_node.cjs"),
        ("whole", "stream", "helper", "parse", "tool loop", "completions", "models", "errors", "left"),
        ("node", "npm"),
        is_full=True,
    ),
    "langchain": Client(
        (ALL, "langchain.py"), ("whole", "stream", "together", "structured", "tool loop", "errors"), is_full=True
    ),
    "litellm": Client(
        (ALL, "through_litellm.py"),
        ("whole", "stream", "hosted_vllm", "tool loop", "completions", "errors", "async"),
        is_full=True,
    ),
    "llm": Client(
        (ALL, "llm_commands.py"),
        ("whole", "stream", "conversation", "schema", "tool", "completions", "models"),
        is_full=True,
    ),
}
MODELS: Final = {"bee-stories": "bee-stories", "SmolLM2": f"file:{SMOLLM2}"}


class Played:
    """The jobs that the clients have done with one model: each program runs once."""

    def __init__(self, swarm: Swarm, model: str) -> None:
        self._url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}/v1"
        self._model = model
        self._home = swarm.home.parent
        self._told: dict[str, tuple[dict[str, Any], str]] = {}

    def job(self, name: str, job: str) -> dict[str, Any]:
        """Return what was asked, what came, and what was wrong with it."""
        if name not in self._told:
            self._told[name] = self._run(CLIENTS[name])
        jobs, errors = self._told[name]
        assert job in jobs, errors
        found: dict[str, Any] = jobs[job]
        return found

    def _run(self, client: Client) -> tuple[dict[str, Any], str]:
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {
            "HOME": str(self._home),
            "NODE_PATH": NODE,
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [client.command[0], str(PROGRAMS / client.command[1]), self._url, self._model],
            cwd=self._home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {each["job"]: each for each in told}, f"exit code {done.returncode}: {done.stderr}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have every run try the smallest model and a few clients, and `--full` all."""
    is_full = metafunc.config.getoption("--full")
    chosen = {name: client for name, client in CLIENTS.items() if is_full or not client.is_full}
    metafunc.parametrize("played", MODELS if is_full else ["bee-stories"], indirect=True, scope="module")
    metafunc.parametrize(("name", "job"), [(name, job) for name, client in chosen.items() for job in client.jobs])


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Give the jobs of clients at a queen with one of the models."""
    assert request.param == "bee-stories" or SMOLLM2, "build/test.py fetches it"
    swarm = Swarm(tmp_path_factory.mktemp("clients") / "rbee", RBEE_WORKER_THREADS="2")
    swarm.start_queen()
    yield Played(swarm, MODELS[request.param])
    swarm.kill()
    logs = "".join(path.read_text("utf-8") for path in (swarm.home / "logs").rglob("*.log"))
    assert "Traceback" not in logs


@pytest.mark.timeout(SECONDS + 100)
def test_a_client_does_its_job(request: pytest.FixtureRequest, played: Played, name: str, job: str, cell: Cell) -> None:
    client = CLIENTS[name]
    if missing := [program for program in client.programs if shutil.which(program) is None]:
        pytest.skip(f"{missing[0]} is not here")
    assert client.command[0], "build/test.py makes the environment"
    told = played.job(name, job)
    assert told["problem"] is None, told["problem"]
    if request.config.getoption("--full"):
        row = f"{name}: {job} ({request.node.callspec.params['played']})"
        cell("What clients asked, and what came", row, "asked", told["asked"])
        cell("What clients asked, and what came", row, "came", " ".join(told["came"].split())[:100])
