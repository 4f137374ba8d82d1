"""The hive of the queen's own host, as a child of this process."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from rbee.adapters import config, tokens
from rbee.adapters.daemon import process
from rbee.adapters.daemon.exit_report import ExitReport
from rbee.adapters.daemon.instance import Instance
from rbee.errors import AlreadyRunningError
from rbee.queen.hives.local import LocalHive
from rbee.queen.registry.identity import HiveIdentities
from tests.kit import paths
from tests.kit.swarm import processes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rbee.wire.progress import ProgressEvent


@pytest.fixture
async def hive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHive]:
    monkeypatch.setenv("RBEE_HOME", str(tmp_path))
    monkeypatch.setenv("RBEE_HIVE_PORT", "0")
    monkeypatch.setattr(sys, "argv", [str(paths.ROOT / "rbee" / "__main__.py")])
    process.program.cache_clear()
    settings = config.load()
    token = tokens.load_or_create(settings.token_file)
    yield LocalHive(settings, token, None, HiveIdentities(token), ephemeral=False)
    process.program.cache_clear()
    for left in processes_of(tmp_path):
        process.send_signal(left.identity, signal.SIGKILL)


async def test_a_hive_whose_process_is_just_being_made_is_ended_too(hive: LocalHive, tmp_path: Path) -> None:
    """The system is still at it when the queen is told to end, and nobody has its pid yet."""
    begun = trio.Event()

    def report(_: ProgressEvent) -> None:
        begun.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hive.run)
        async with trio.open_nursery() as starting:
            starting.start_soon(hive.ensure, report)
            await begun.wait()
            starting.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                assert await hive.end(trio.Event()) is None
        assert processes_of(tmp_path) == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("left", [{"ended_cleanly": True}, {"report": ExitReport()}], ids=["older version", "report"])
async def test_a_hive_that_has_ended_but_for_its_process_is_waited_for(
    hive: LocalHive, tmp_path: Path, left: dict[str, Any]
) -> None:
    """A request that came then got 'does not answer', where the next hive would take it."""
    identity = process.identify(os.getpid())
    assert identity is not None
    instance = Instance(identity, "http://127.0.0.1:1", "0.1.0", ephemeral=False, started_by="queen", **left)
    (tmp_path / "hive.lock").write_bytes(msgspec.json.encode(instance))
    with pytest.raises(AlreadyRunningError, match="is just ending"):
        await hive.ensure(lambda _: None)
