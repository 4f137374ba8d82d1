"""Callers of another machine or container, each in a network namespace of its own, need a key, or an open queen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.kit import network
from tests.kit.local_http import LOCAL
from tests.kit.network import OURS
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.network import Network

REASON = network.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def net() -> Iterator[Network]:
    found = network.Network()
    yield found
    found.close()


def status(swarm: Swarm, path: str = "/v1/models", **headers: str) -> int:
    """Ask by the address that both sides know; where the calling thread is now."""
    url = f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}{path}"
    return httpx.get(url, headers=headers, timeout=PATIENCE, **LOCAL).status_code


@pytest.mark.parametrize("flags", [("--lan",), ("--lan", "--open")])
def test_who_is_outside_needs_a_key_unless_everyone_may(net: Network, tmp_path: Path, flags: tuple[str, ...]) -> None:
    swarm, is_open = Swarm(tmp_path), "--open" in flags
    try:
        up = swarm.run("up", *flags)
        assert f"http://{OURS}:{swarm.env['RBEE_QUEEN_PORT']}/v1" in up.stderr or "ADDRESS" in up.stderr
        key = swarm.run("keys", "create", "alice").stdout.strip()
        with net.node():
            assert status(swarm) == (200 if is_open else 401)
            assert status(swarm, Authorization="Bearer sk-guessed") == (200 if is_open else 401)
            assert status(swarm, Authorization=f"Bearer {key}") == 200
            assert status(swarm, "/v2/status") == 401
            assert status(swarm, "/v2/status", Authorization=f"Bearer {key}") == 403
            assert status(swarm, "/health") == 200
        assert status(swarm) == 200, "our own user is on the queen's machine, by whichever address it asks"
        assert swarm.run("down").returncode == 0
        wait_until(lambda: not swarm.processes(), "processes are left")
    finally:
        swarm.kill()
