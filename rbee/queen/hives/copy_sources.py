"""Finds out which nodes have a model that another one is to get, so that it is copied from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.clients.hive import HiveClient
    from rbee.queen.nodes.node import Node
    from rbee.wire.model_copy import Source

    Find = Callable[[HiveClient, str], Awaitable[list[Source]]]
    """Takes a connection to a node's hive and a model's reference; returns who else has the model."""


async def nobody(_hive: HiveClient, _reference: str) -> list[Source]:
    """Return no source: there is no other node."""
    await trio.lowlevel.checkpoint()
    return []


async def find(target: Node, hive: HiveClient, reference: str, others: Sequence[Node]) -> list[Source]:
    """Ask the other nodes, all at once and each for a bounded time, what they have of a model's repository.

    None of them is asked where `hive`, that of `target`, has the model already.
    """
    if not reference.startswith("hf:") or not others or (await hive.offers(reference)).is_here:
        return []
    found: dict[str, Source] = {}

    async def ask(node: Node) -> None:
        if (source := await node.source(reference, target)) is not None:
            found[node.name] = source

    async with trio.open_nursery() as nursery:
        for node in others:
            nursery.start_soon(ask, node)
    return [found[node.name] for node in others if node.name in found]
