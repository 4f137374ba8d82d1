"""The command with which a worker's process is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import config
from rbee.adapters.config import Settings
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models.library import Library
from rbee.hive.workers.processes import LocalMachine
from rbee.hive.workers.record import WorkerRecord
from tests.kit.standin_machine import SPEC

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    import pytest

WORKER = WorkerRecord("w", SPEC, "loading", 0.0, url="http://127.0.0.1:9")


def machine(settings: Settings) -> LocalMachine:
    async def transact(work: Callable[..., Any]) -> Any:
        raise AssertionError("no model is asked for here")

    library = Library(settings, Catalogue(settings.paths.models, transact), "token")
    return LocalMachine(settings, library, "token", "http://127.0.0.1:9200")


def test_a_worker_reads_the_file_that_its_hive_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rbee.toml").write_text("[timeouts]\ninference = 1000\n")
    monkeypatch.chdir(tmp_path)
    command = machine(config.load(file="rbee.toml")).command(WORKER)
    assert command[command.index("--config") + 1] == str(tmp_path / "rbee.toml")
    assert "--config" not in machine(Settings()).command(WORKER)
