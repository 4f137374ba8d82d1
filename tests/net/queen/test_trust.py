"""The token is sent to no program that has taken a hive's place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from rbee import __version__
from rbee.adapters import config, tokens
from rbee.adapters.http import server as http_server
from rbee.adapters.http.app import answer, new_app, with_keys
from rbee.adapters.http.app import proof as proof_of
from rbee.narrower_errors import KeyRefusedError
from rbee.queen.hives.local import LocalHive
from rbee.queen.hives.remote.reach import Reach
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.registry.record import NodeRecord
from rbee.wire.common import API_VERSION, Health
from rbee.wire.hive import HEALTH, WORKERS_LIST, WorkerList
from tests.kit.ports import own_address
from tests.kit.remote_nodes import row
from tests.kit.scripted import Scripted, reply
from tests.kit.strangers import as_stranger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import trio
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.registry.table import Registry

TOKEN = "rbee_0123456789012345678901234567890123456789012"
HIVE = "a" * 32
OF_BEFORE = {
    "status": "alive",
    "version": __version__,
    "api_version": API_VERSION,
    "hive_id": HIVE,
    "swarm": tokens.swarm_id(TOKEN),
}
WRONG = OF_BEFORE | {"proof": "0" * 64}


def script(*answers: dict[str, Any]) -> Scripted:
    return Scripted(*(reply(json.dumps(one).encode()) for one in answers))


def hive() -> QuartTrio:
    """Return what of a hive is needed here."""
    app = new_app("hive", with_keys(lambda _: [TOKEN], {HEALTH}))

    @app.get(HEALTH)
    async def health() -> Response:
        found = msgspec.convert(OF_BEFORE, Health)
        return answer(msgspec.structs.replace(found, proof=proof_of(TOKEN, "hive")))

    @app.get(WORKERS_LIST)
    async def workers() -> Response:
        return answer(WorkerList(workers=[]))

    return app


def local(folder: Path, url: str) -> LocalHive:
    settings = config.load(environment={"RBEE_HOME": str(folder), "RBEE_HIVE_PORT": url.rpartition(":")[2]})
    return LocalHive(settings, TOKEN, None, HiveIdentities(TOKEN), ephemeral=False)


def has_got_token(server: Scripted) -> bool:
    return any(TOKEN.encode() in request for request in server.requests)


# The hive of the queen's own host.


@pytest.mark.parametrize("health", [OF_BEFORE, WRONG], ids=["none", "wrong"])
async def test_another_users_program_at_the_port_of_our_hive_gets_nothing(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, health: dict[str, Any]
) -> None:
    server = script(health)
    with as_stranger(monkeypatch):
        await server.run(nursery)
    with pytest.raises(KeyRefusedError, match="does not prove that it has the swarm's token"):
        await local(tmp_path, server.url).find()
    assert len(server.requests) == 1
    assert not has_got_token(server)


@pytest.fixture
async def theirs(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of another user's hive of our swarm."""
    with as_stranger(monkeypatch):
        listener = http_server.bind("127.0.0.1", 0)
    server = http_server.Server(hive(), listener)
    await nursery.start(server.run)
    yield http_server.base_url(listener)
    await server.stop()


async def test_another_users_hive_of_our_swarm_is_used(tmp_path: Path, theirs: str) -> None:
    link = local(tmp_path, theirs)
    assert await link.find() == theirs
    async with link.connect(theirs) as client:
        assert (await client.workers()).workers == []


async def test_our_own_may_be_of_the_time_before(tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(*(reply(json.dumps(OF_BEFORE).encode()) for _ in range(2)), reply(b'{"workers": []}'))
    link = local(tmp_path, server.url)
    for _ in range(2):
        assert await link.find() == server.url
    async with link.connect(server.url) as client:
        await client.workers()
    assert has_got_token(server)


# The hive of a node.


class Unwritten:
    """A registry that keeps nothing."""

    async def change(self, _name: str, /, **_: Any) -> None: ...


def reach_of(address: str) -> Reach:
    identities = HiveIdentities(TOKEN)
    record = NodeRecord(row("attic", address), cast("Registry", Unwritten()), identities)
    return Reach(record, config.Settings(), TOKEN, identities)


async def test_a_nodes_hive_that_has_proven_itself_must_go_on_to(nursery: trio.Nursery) -> None:
    """Until SSH has led there again: it may have been taken back to an earlier version."""
    address = own_address()
    reach = reach_of(address)
    before = script(OF_BEFORE, OF_BEFORE, OF_BEFORE)
    real = http_server.Server(hive(), http_server.bind(address, 9200))
    await nursery.start(real.run)
    assert await reach.find() == f"http://{address}:9200"
    await real.stop()
    await before.run(nursery, address, 9200)
    with pytest.raises(KeyRefusedError, match="does not prove"):
        await reach.find()
    reach.vouch()
    assert await reach.find() == before.url


async def test_a_wrong_proof_is_never_believed(nursery: trio.Nursery) -> None:
    address = own_address()
    server = script(WRONG, WRONG)
    await server.run(nursery, address, 9200)
    reach = reach_of(address)
    for _ in range(2):
        with pytest.raises(KeyRefusedError, match="does not prove"):
            await reach.find()
        reach.vouch()
    assert not has_got_token(server)
