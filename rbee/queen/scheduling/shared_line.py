"""Gives requests that wait on one node, and may go to any, the slots that get free on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rbee.queen.scheduling.known_prompts import KnownPrompts
from rbee.queen.scheduling.turns import CallerTurns

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.place_request import Placed, PlaceRequest


class NodeLine(Protocol):
    """The line of one node, and its slots."""

    def movable(self) -> Collection[PlaceRequest]:
        """Return the requests that wait for a slot there, and may go to another node."""

    def has_free(self) -> bool:
        """Return whether any slot is free there."""

    def take_free(self, request: PlaceRequest) -> Placed | None:
        """Reserve a slot that is free there for a request that waits on another node."""

    def move(self, request: PlaceRequest, placed: Placed) -> None:
        """A slot of another node is reserved for a request that waits there."""


class SharedLine:
    """The lines of all nodes, as far as they are one.

    A request keeps its place in the line of one node until another node's slot is reserved for it: nothing is awaited
    between the two, so it can neither lose its place for nothing nor get two slots.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, NodeLine] = {}
        self.turns = CallerTurns()
        """Whose turn it is, on all nodes."""
        self.known = KnownPrompts()
        """Which workers have read what, on all nodes."""

    def add(self, name: str, node: NodeLine) -> None:
        """A node has come."""
        self._nodes[name] = node

    def remove(self, name: str) -> None:
        """A node has gone; it answers the requests of its own line itself."""
        self._nodes.pop(name, None)

    def take(self, name: str, request: PlaceRequest) -> Placed | None:
        """Reserve a slot for a request that is about to wait on node `name`, on any other."""
        others = (node for other, node in self._nodes.items() if other != name)
        return next((placed for node in others if (placed := node.take_free(request)) is not None), None)

    def offer(self, name: str, now: float) -> None:
        """A slot of node `name` may be free, which its own line has no use for: the next of the others gets it."""
        if (free := self._nodes.get(name)) is None or not free.has_free():
            return  # as of most events; thousands may wait
        waiting = {request: node for node in self._nodes.values() if node is not free for request in node.movable()}
        in_vain: set[Wanted] = set()
        for request in self.turns.order(waiting, now):
            if request.wanted in in_vain:
                continue
            if (placed := free.take_free(request)) is None:
                in_vain.add(request.wanted)
            else:
                waiting[request].move(request, placed)
