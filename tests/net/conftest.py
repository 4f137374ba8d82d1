"""What tests of sockets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio


@pytest.fixture
async def scripted(nursery: trio.Nursery) -> Callable[..., Awaitable[Scripted]]:
    """Give a function that starts a server with scripts."""

    async def start(*answers: bytes) -> Scripted:
        server = Scripted(*answers)
        await server.run(nursery)
        return server

    return start
