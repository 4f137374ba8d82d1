"""What a queen does with requests that wait, when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from rbee.errors import DrainingError
from rbee.queen.node import Node
from rbee.queen.placement import Wanted

if TYPE_CHECKING:
    from rbee.queen.link import HiveLink


class StartsForEver:
    async def find(self) -> None:
        return None

    async def ensure(self, tell: object) -> str:
        await trio.sleep_forever()
        raise AssertionError


async def test_every_order_is_told_that_the_queen_ends() -> None:
    """The first is being handled, and the others have not been read from the inbox yet."""
    node = Node("local", cast("HiveLink", StartsForEver()))
    told = []

    async def order(model: str) -> None:
        with pytest.raises(DrainingError):
            await node.place(Wanted(model, None, None), lambda _: None)
        told.append(model)

    with trio.fail_after(10):
        async with trio.open_nursery() as callers, trio.open_nursery() as running:
            running.start_soon(node.run)
            for model in ("a", "b", "c"):
                callers.start_soon(order, model)
            await trio.testing.wait_all_tasks_blocked()
            running.cancel_scope.cancel()
    assert sorted(told) == ["a", "b", "c"]
    with pytest.raises(DrainingError):
        await node.place(Wanted("d", None, None), lambda _: None)
