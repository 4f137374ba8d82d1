"""Finds out which nodes may take a request whose user has named none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.queen.nodes.own_files import is_own_file, stat
from rbee.queen.scheduling.choose_node import is_served, rank
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.queen.nodes.node import Node
    from rbee.queen.scheduling.choose_node import Choice
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.known_prompts import KnownBeginning


async def choices_among(nodes: Sequence[Node], wanted: Wanted, known: KnownBeginning | None = None) -> list[Choice]:
    """Return the nodes that may take a request, the best first.

    Where a worker that runs takes it, its node alone is asked, and only whether it is there: the queen knows the
    workers, but a machine that has lost its power is noticed by its event stream half a minute later. Where a
    worker has to be started all are asked, at once: how much memory is free changes from moment to moment.
    """
    found = {node.name: await node.known_candidate() for node in nodes}
    to_ask = list(nodes)
    is_file = is_own_file(wanted.model_ref)
    # Of a file only the nodes can say whether what their workers have loaded is still what it means.
    if not is_file and is_served(ranked := rank(list(found.values()), wanted, known)):
        node = next(node for node in nodes if node.name == ranked[0].node)
        if await node.answers():
            return ranked
        found[node.name] = await node.absent_candidate()
        to_ask.remove(node)

    async def ask(node: Node) -> None:
        found[node.name] = await node.candidate(wanted.model_ref)

    async with trio.open_nursery() as nursery:
        for node in to_ask:
            nursery.start_soon(ask, node)
    if is_file and LOCAL_NODE in found:
        found[LOCAL_NODE] = found[LOCAL_NODE]._replace(file=await stat(wanted.model_ref))
    return rank(list(found.values()), wanted, known)
