"""The token is sent to no program that has taken the queen's place."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.daemon import port_owner
from rbee.adapters.http import own_address, port_users, proof
from rbee.adapters.http import server as http_server
from rbee.adapters.http.app import answer, new_app, with_keys
from rbee.adapters.http.app import proof as proof_of
from rbee.errors import RbeeError
from rbee.keeper.output.terminal import Terminal
from rbee.keeper.session import running_queen, trust
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.session.running_queen import RunningQueen
from rbee.narrower_errors import KeyRefusedError
from rbee.wire.common import CHALLENGE_HEADER
from rbee.wire.queen import API_VERSION, HEALTH, WORKERS_LIST, QueenHealth, SwarmWorkers, TaskRequest
from tests.kit.local_http import LOCAL
from tests.kit.scripted import Scripted, reply
from tests.kit.strangers import NOBODY, as_stranger
from tests.net.keeper.test_named_queen import TOKEN, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings

SWARM = tokens.swarm_id(TOKEN)
OF_BEFORE = {"status": "ok", "version": __version__, "swarm": SWARM}
OF_NOW = OF_BEFORE | {"api_version": API_VERSION}


def queen(token: str = TOKEN) -> QuartTrio:
    """Return what of a queen is needed here."""
    app = new_app("queen", with_keys(lambda _: [token], {HEALTH}))

    @app.get(HEALTH)
    async def health() -> Response:
        values: dict[str, Any] = OF_NOW
        return answer(QueenHealth(**values, proof=proof_of(token, "queen")))

    @app.get(WORKERS_LIST)
    async def workers() -> Response:
        return answer(SwarmWorkers(workers=[]))

    return app


class Strangers:
    """Starts servers of another user of this machine."""

    def __init__(self, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        self._nursery = nursery
        self._monkeypatch = monkeypatch
        self.servers: list[http_server.Server] = []

    async def script(self, *answers: dict[str, Any]) -> Scripted:
        server = Scripted(*(reply(json.dumps(one).encode()) for one in answers))
        with as_stranger(self._monkeypatch):
            await server.run(self._nursery)
        return server

    async def serve(self, app: QuartTrio) -> str:
        with as_stranger(self._monkeypatch):
            listener = http_server.bind("127.0.0.1", 0)
        server = http_server.Server(app, listener)
        await self._nursery.start(server.run)
        self.servers.append(server)
        return http_server.base_url(listener)


@pytest.fixture
async def strangers(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Strangers]:
    found = Strangers(nursery, monkeypatch)
    yield found
    for server in found.servers:
        await server.stop()


def unnamed(folder: Path, url: str) -> Settings:
    return settings_of(folder, RBEE_QUEEN_PORT=str(urlsplit(url).port))


async def use(settings: Settings) -> None:
    """Find the queen and ask it something, as a command does."""
    found = await running_queen.find(settings)
    assert found is not None
    async with attach(settings, found, Terminal()) as client:
        await client.workers()


def has_got_token(server: Scripted) -> bool:
    return any(TOKEN.encode() in request for request in server.requests)


# Who listens.


@pytest.mark.parametrize(
    ("host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.7"), ("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")],
)
def test_who_listens_is_seen(monkeypatch: pytest.MonkeyPatch, host: str, asked: str) -> None:
    made_by = NOBODY if os.geteuid() == 0 else os.geteuid()
    with as_stranger(monkeypatch):
        listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, dualstack_ipv6=host == "::"
        )
    with listener:
        port = listener.getsockname()[1]
        assert port_owner.users_at(asked, port) == {made_by}
        assert port_owner.listed_at(asked, port) == {made_by}


def test_who_listens_at_another_address_or_no_more_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        assert port_owner.users_at("127.0.0.1", port) == {os.geteuid()}
        assert port_owner.users_at("127.0.0.2", port) == set()
        assert port_owner.listed_at("127.0.0.2", port) == set()
    assert port_owner.users_at("127.0.0.1", port) == set()


async def test_other_users_are_strangers_and_we_and_root_are_none(strangers: Strangers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert await port_users.strangers(f"http://127.0.0.1:{ours.getsockname()[1]}") == set()
        theirs = await strangers.script()
    assert len(await port_users.strangers(theirs.url)) == 1
    assert await port_users.strangers(theirs.url.replace("127.0.0.1", "localhost")) != set()
    assert await port_users.strangers("http://192.0.2.1:8080") == set()
    assert await own_address.own_addresses("nowhere.invalid") == []


# A queen at the address that nobody has named.


@pytest.mark.parametrize(
    "health", [OF_BEFORE, OF_NOW, OF_BEFORE | {"swarm": None}, OF_NOW | {"proof": "0" * 64}, OF_NOW | {"proof": ""}]
)
async def test_another_users_program_at_our_port_gets_nothing(
    tmp_path: Path, strangers: Strangers, health: dict[str, Any]
) -> None:
    server = await strangers.script(health, health)
    with pytest.raises(KeyRefusedError, match="does not prove that it has the swarm's token, which was not sent"):
        await use(unnamed(tmp_path, server.url))
    assert len(server.requests) == 1
    assert not has_got_token(server)


async def test_another_users_queen_of_our_swarm_proves_that_it_is_one(tmp_path: Path, strangers: Strangers) -> None:
    await use(unnamed(tmp_path, await strangers.serve(queen())))


async def test_our_own_needs_no_proof(
    tmp_path: Path, serve_app: Callable[..., Any], scripted: Callable[..., Any]
) -> None:
    await use(unnamed(tmp_path, await serve_app(queen())))
    server = await scripted(reply(json.dumps(OF_BEFORE).encode()), reply(b'{"workers": []}'))
    await use(unnamed(tmp_path, server.url))


@pytest.mark.parametrize("is_named", [False, True])
async def test_a_program_that_asks_the_queen_for_the_proof(
    tmp_path: Path, strangers: Strangers, serve_app: Callable[..., Any], *, is_named: bool
) -> None:
    """Where we expect our own it does not get through; one that is named may be a proxy, which does the same."""
    real = await serve_app(queen())
    app = new_app("relay", with_keys(lambda _: [TOKEN], {HEALTH}))

    @app.get(HEALTH)
    async def health() -> Response:
        from quart import request

        async with httpx.AsyncClient(**LOCAL) as client:
            headers = {CHALLENGE_HEADER: request.headers[CHALLENGE_HEADER]}
            return answer((await client.get(real + HEALTH, headers=headers)).json())

    @app.get(WORKERS_LIST)
    async def workers() -> Response:
        return answer(SwarmWorkers(workers=[]))

    url = await strangers.serve(app)
    if is_named:
        await use(settings_of(tmp_path, url))
        return
    with pytest.raises(KeyRefusedError, match="does not prove"):
        await use(unnamed(tmp_path, url))


async def test_who_takes_the_port_while_it_is_used_gets_nothing(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Scripted(reply(json.dumps(OF_NOW).encode()))
    scope = await nursery.start(run_until_cancelled, ours)
    settings = unnamed(tmp_path, ours.url)
    found = await running_queen.find(settings)
    assert found is not None
    theirs = Scripted(reply(b'{"workers": []}'))
    async with attach(settings, found, Terminal()) as client:
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with as_stranger(monkeypatch):
            await theirs.run(nursery, port=urlsplit(ours.url).port or 0)
        with pytest.raises(KeyRefusedError, match="has been taken by another user"):
            await client.workers()
        with pytest.raises(KeyRefusedError, match="has been taken by another user"):
            async with client.place(TaskRequest(prompt="x")):
                pass
    assert theirs.requests == []


async def run_until_cancelled(server: Scripted, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            await server.run(inner)
            task_status.started(scope)


# A queen that the user has named.


@pytest.mark.parametrize(
    ("health", "is_believed"),
    [
        (OF_BEFORE, True),  # of the time before there were proofs
        (OF_NOW, False),
        (OF_NOW | {"proof": "0" * 64}, False),
        (OF_BEFORE | {"proof": "x"}, False),
        (OF_NOW | {"proof": tokens.proof(TOKEN, "queen", "0" * 32)}, False),
        (OF_NOW | {"proof": tokens.proof("rbee_other", "queen", "0" * 32)}, False),
    ],
)
async def test_one_that_only_pretends_gets_nothing(
    tmp_path: Path, scripted: Callable[..., Any], health: dict[str, Any], is_believed: bool
) -> None:
    server = await scripted(reply(json.dumps(health).encode()), reply(b'{"workers": []}'))
    try:
        await use(settings_of(tmp_path, server.url))
    except RbeeError as exc:
        assert "does not prove" in exc.message  # noqa: PT017 (it may not be raised)
    assert has_got_token(server) is is_believed


async def test_one_that_has_the_token_proves_it_under_any_name(tmp_path: Path, serve_app: Callable[..., Any]) -> None:
    url = await serve_app(queen())
    await use(settings_of(tmp_path, url))
    await use(settings_of(tmp_path, url.replace("127.0.0.1", "localhost")))
    with pytest.raises(KeyRefusedError, match="does not prove"):
        await use(settings_of(tmp_path, await serve_app(queen("rbee_other"))))


async def test_one_elsewhere_that_has_proven_itself_must_go_on_to(tmp_path: Path) -> None:
    url = "http://192.0.2.1:8080"
    settings = settings_of(tmp_path, url)
    asked = proof.challenge(TOKEN, "queen")
    before, now = QueenHealth(**OF_BEFORE), QueenHealth(**OF_NOW, proof=asked.expected)  # type: ignore[arg-type]
    await trust.check(RunningQueen(url, before, None, asked), settings)
    await trust.check(RunningQueen(url, now, None, asked), settings)
    with pytest.raises(KeyRefusedError, match="does not prove") as caught:
        await trust.check(RunningQueen(url, before, None, asked), settings)
    assert f"remove {tmp_path / 'queens.json'}" in (caught.value.hint or "")
    (tmp_path / "queens.json").unlink()
    await trust.check(RunningQueen(url, before, None, asked), settings)


@pytest.mark.parametrize("asked", ["", "x", "0" * 31, "g" * 32, "0" * 32 + " ", "0" * 32 + " 127.0.0.1:1", "0" * 999])
def test_what_is_no_challenge_to_this_address_gets_no_proof(asked: str) -> None:
    assert proof.answer(asked, "127.0.0.1:8080", TOKEN, "queen") is None


def test_a_proof_is_good_for_one_challenge_of_one_role() -> None:
    one, other = proof.challenge(TOKEN, "queen", at="[::1]:8080"), proof.challenge(TOKEN, "queen")
    assert one.is_met_by(proof.answer(one.text, "[::1]:8080", TOKEN, "queen"))
    for wrong in (
        proof.answer(one.text, "[::1]:8080", TOKEN, "hive"),
        proof.answer(one.text, "[::1]:8080", "rbee_other", "queen"),
        proof.answer(other.text, "[::1]:8080", TOKEN, "queen"),
        None,
        "é",
    ):
        assert not one.is_met_by(wrong)
