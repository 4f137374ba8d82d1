"""A user's own model file, sent to another node through the queen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters import tokens
from rbee.wire.model_push import PIECE_BYTES
from tests.kit import models
from tests.kit.ports import own_address
from tests.kit.remote_nodes import register, start_hive
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Daemon, Daemons

ROOT = Path(__file__).resolve().parents[3]
SIZE = 40_000_000
PATH = "/proc/self/cwd/mine.gguf"
"""A path at which each process has another file, as each machine has: that of the daemons is not there."""


class Swarm:
    """A queen, the node `attic`, and a user with a file."""

    def __init__(self, daemons: Daemons, *, is_queen_there: bool = False) -> None:
        self.home = daemons.home
        self.folder = daemons.home.with_name("user")
        self.folder.mkdir()
        self.file = models.make(self.folder / "mine.gguf", width=512)
        with self.file.open("ab") as file:
            file.write(os.urandom(SIZE - self.file.stat().st_size))
        address = own_address()
        register(daemons.home, ("attic", address))
        tokens.load_or_create(daemons.home / "token")
        self.models = daemons.home.with_name("models-attic")
        self.attic: Daemon = start_hive(daemons, "attic", address, RBEE_PATHS_MODELS_DIR=str(self.models))
        cwd = self.folder if is_queen_there else ROOT
        self.queen = daemons.start("queen", cwd=cwd, RBEE_WORKER_CONTEXT="64")

    def push(self, *words: str) -> subprocess.Popen[str]:
        return self.command("push", *words)

    def command(self, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "RBEE_HOME": str(self.home),
            "RBEE_QUEEN_PORT": self.queen.url.rpartition(":")[2],
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "rbee", "models", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def ended(self, *words: str) -> tuple[int, str, str]:
        return self.outcome(self.push(*words))

    def outcome(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        with process:
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err


@pytest.fixture
def swarm(daemons: Daemons) -> Swarm:
    return Swarm(daemons)


def test_a_file_is_pushed_resumed_and_used_there(swarm: Swarm) -> None:
    copy = swarm.models / "file" / PATH[1:]
    part = copy.with_name("mine.gguf.part")
    first = swarm.push(PATH, "--node", "attic")
    wait_until(lambda: part.exists() and part.stat().st_size > 0, "a part is there")
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode in (0, 130), errors  # it may have been faster
    left = part.stat().st_size if part.exists() else SIZE
    code, out, errors = swarm.ended(PATH, "--node", "attic", "--json")
    assert code == 0, errors
    row: dict[str, Any] = json.loads(out)
    assert (row["model_ref"], row["size_bytes"], row["local_path"]) == (f"file:{PATH}", SIZE, str(copy))
    assert copy.read_bytes() == swarm.file.read_bytes()
    if left < SIZE - PIECE_BYTES:  # the last piece may have been on its way
        assert "Copying mine.gguf (40.0 MB) to attic" in errors
        assert "% of it is there" in errors
    assert f"file:{PATH} is on attic: mine, 40.0 MB." in errors
    log = (swarm.queen.home / "logs" / "queen.log").read_text()
    lines = [line for line in log.splitlines() if "/v2/models/push" in line and "status=499" not in line]
    assert len(lines) == 2, "one for each push, and none for its pieces, but the one whose client went"
    assert all(f"model=file:{PATH} node=attic" in line for line in lines)
    for words, said in (
        (("alias", "own", f"file:{PATH}@attic"), "own stands for "),
        (("rm", "Own"), "mine was removed from attic: 40.0 MB."),
        (("rm", "own"), f"file:{PATH} is no model of attic"),
    ):
        assert said in swarm.outcome(swarm.command(*words))[2]
    assert not copy.exists()
    assert swarm.ended(PATH, "--node", "attic")[0] == 0
    with swarm.queen.client() as client:
        task = {"prompt": "A", "model": f"file:{PATH}", "node": "attic"}
        placed = client.post("/v2/tasks", json=task).json()
        assert placed.get("node") == "attic", placed
        ended = client.post("/v2/tasks", json=task | {"model": "file:/nowhere/mine.gguf"}).json()["error"]
        assert (ended["code"], "models push" in ended["hint"]) == ("MODEL_NOT_FOUND", True)


def test_a_file_of_the_queens_host_is_brought_to_a_node_and_kept_up_to_date(daemons: Daemons) -> None:
    """The queen runs in the user's folder here, and so has another file at the path than the node."""
    swarm = Swarm(daemons, is_queen_there=True)
    copy = swarm.models / "file" / PATH[1:]
    with swarm.queen.client() as client:
        task = {"prompt": "A", "model": f"file:{PATH}", "node": "attic"}
        first = client.post("/v2/tasks", json=task).json()
        assert copy.read_bytes() == swarm.file.read_bytes()
        assert client.post("/v2/tasks", json=task).json()["worker_id"] == first["worker_id"]
        with swarm.file.open("ab") as file:
            file.write(b"more")
        placed = client.post("/v2/tasks", json=task).json()
        assert placed.get("node") == "attic", placed
    assert copy.read_bytes() == swarm.file.read_bytes()


def test_many_requests_at_once_have_a_file_brought_once(daemons: Daemons) -> None:
    swarm = Swarm(daemons, is_queen_there=True)
    task = {"prompt": "A", "model": f"file:{PATH}", "node": "attic"}

    def ask(_: int) -> str:
        with swarm.queen.client() as client:
            return client.post("/v2/tasks", json=task, headers={"Accept": "text/event-stream"}, timeout=60).text

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(ask, range(6)))
    assert ["event: worker" in answer for answer in answers] == [True] * 6, answers
    assert sum(answer.count('"action":"push"') for answer in answers) == 1


def test_what_cannot_be_pushed_is_said_at_once(swarm: Swarm) -> None:
    (swarm.folder / "page.gguf").write_text("<html>log in</html>")
    (swarm.folder / "notes.txt").write_text("GGUF")
    (swarm.folder / "m-00001-of-00002.gguf").write_text("GGUF")
    for words, expected in (
        (("page.gguf", "--node", "attic"), "page.gguf is not a GGUF file"),
        (("notes.txt", "--node", "attic"), "their names end in .gguf"),
        (("none.gguf", "--node", "attic"), "there is no file"),
        ((".", "--node", "attic"), "is a folder"),
        (("m-00001-of-00002.gguf", "--node", "attic"), "m-00002-of-00002.gguf"),
        (("mine.gguf", "--node", "cellar"), "cellar"),
        (("mine.gguf", "--node", "a b"), "node"),
        (("mine.gguf", "--node", "attic"), "attic has this very file already"),
    ):
        code, _, errors = swarm.ended(*words)
        assert expected in errors
        assert code == (0 if "already" in expected else 2 if "a b" in words else 1), errors
        assert "Traceback" not in errors
