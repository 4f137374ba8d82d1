"""A model that is removed while a worker is about to be started with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from rbee.adapters.config import Settings
from rbee.errors import ModelInUseError, ModelNotFoundError
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.library import Library
from rbee.hive.tables import MIGRATIONS
from rbee.wire import model_ref
from rbee.wire.hub import HubFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rbee.wire.models import ModelRow

M = model_ref.parse("hf:bees/model")
TRANSACTIONS = 4
"""Of a start with a model that is here: one more than these would not be tried below."""


async def nobody(_row: ModelRow) -> list[str]:
    await trio.lowlevel.checkpoint()
    return []


@pytest.mark.parametrize("number", range(1, TRANSACTIONS + 1))
async def test_it_is_kept_or_fetched_again_at_whichever_moment_it_is_removed(number: int, tmp_path: Path) -> None:
    path = tmp_path / "hf/bees/model/m.gguf"
    count, is_removing, outcomes = 0, False, []

    async def transact(work: Callable[[sqlite3.Connection], Any]) -> Any:
        nonlocal count, is_removing
        await trio.lowlevel.checkpoint()
        if not is_removing and (count := count + 1) == number:
            is_removing = True
            try:
                await library.remove("m", nobody)
                outcomes.append("removed")
            except (ModelInUseError, ModelNotFoundError) as exc:
                outcomes.append(exc.code)
            is_removing = False
        with connection:
            return work(connection)

    async def fetch(*_: object) -> ModelRow:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")
        return await catalogue.add(M, "Q4_K_M", path, [HubFile("m.gguf", 4, None)])

    catalogue = Catalogue(tmp_path, transact)
    library = Library(Settings(), catalogue, "token")
    library.downloads = Downloads(fetch)
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in MIGRATIONS:
            connection.executescript(script)
        async with trio.open_nursery() as nursery:
            await nursery.start(library.downloads.run)
            is_removing = True
            await fetch()
            is_removing = False
            async with library.provided(M, lambda _: None, []) as located:
                assert outcomes, "the start has fewer transactions"
                assert located.path.read_bytes() == b"GGUF"
                assert [row.id for row in await catalogue.all()] == ["m"]
                with pytest.raises(ModelInUseError):
                    await library.remove("m", nobody)
            nursery.cancel_scope.cancel()
    assert outcomes[0] == ("removed" if number < TRANSACTIONS - 1 else "MODEL_IN_USE")
