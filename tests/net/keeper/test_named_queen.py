"""A queen that the user has named: found, refused or missed, without one of this machine being taken for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest
import trio

from rbee import __version__
from rbee.adapters import config, tokens
from rbee.adapters.daemon.instance import InstanceLock
from rbee.adapters.http import client
from rbee.errors import (
    ConnectionTimeoutError,
    InternalError,
    InvalidRequestError,
    PortInUseError,
    StorageError,
    VersionMismatchError,
)
from rbee.keeper.commands import token
from rbee.keeper.inference.explain_failure import name_node
from rbee.keeper.inference.reach import is_reached
from rbee.keeper.output.terminal import Terminal
from rbee.keeper.session import running_queen
from rbee.keeper.session.attached_queen import AttachedQueen, attach
from rbee.keeper.session.queen_address import QueenAddress
from rbee.keeper.session.running_queen import RunningQueen
from rbee.narrower_errors import KeyRefusedError
from rbee.wire.queen import QueenHealth, TaskHandle, TaskRequest
from tests.kit.certificates import self_signed
from tests.kit.scripted import NOBODY, Scripted, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options

TOKEN = "rbee_0123456789012345678901234567890123456789012"
WORKER = "6b8ff8ee-1a6c-4a2c-8a3c-0123456789ab"


def settings_of(folder: Path, url: str = "", token: str | None = TOKEN, **environment: str) -> Settings:
    folder.mkdir(exist_ok=True)
    if token is not None:
        (folder / "token").write_text(token)
    return config.load(environment={"RBEE_HOME": str(folder), "RBEE_QUEEN_URL": url, **environment})


def health(**fields: str) -> bytes:
    body = {"status": "ok", "version": __version__, **fields}
    return reply(("{" + ", ".join(f'"{name}": "{value}"' for name, value in body.items()) + "}").encode())


async def refused(folder: Path, url: str, kind: type[Exception] = ConnectionTimeoutError) -> str:
    with pytest.raises(kind) as caught:
        await running_queen.find(settings_of(folder, url))
    found = caught.value
    return f"{found.message}\n{found.hint}"  # type: ignore[attr-defined]


async def test_it_is_found_and_is_not_ours(tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(health(queen_id="a" * 32))
    found = await running_queen.find(settings_of(tmp_path, server.url))
    assert found is not None
    assert (found.url, found.own) == (server.url, None)


async def test_its_path_is_kept_and_the_health_needs_no_token(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]
) -> None:
    server = await scripted(health())
    assert await running_queen.find(settings_of(tmp_path, f"{server.url}/bees/rbee/")) is not None
    (asked,) = server.requests
    assert asked.startswith(b"GET /bees/rbee/health HTTP/1.1\r\n")
    assert TOKEN.encode() not in asked


async def test_ours_is_ours_by_any_name(tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]) -> None:
    with InstanceLock(tmp_path, "queen") as lock:
        server = await scripted(health(queen_id=lock.id), health(queen_id="b" * 32), health())
        lock.publish(server.url, __version__, ephemeral=False)
        settings = settings_of(tmp_path, server.url.replace("127.0.0.1", "localhost"))
        owns = [found.own is not None for _ in range(3) if (found := await running_queen.find(settings)) is not None]
    assert owns == [True, False, False]


async def test_where_none_answers_none_is_started(tmp_path: Path) -> None:
    said = await refused(tmp_path, NOBODY)
    assert f"no queen answers at {NOBODY} (connection refused)" in said
    assert "tunnel" in said


async def test_nor_is_one_at_the_address_of_another_machine(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, RBEE_QUEEN_HOST="192.0.2.1", RBEE_QUEEN_PORT="9", RBEE_TIMEOUTS_CALL="0.2")
    with pytest.raises(ConnectionTimeoutError, match=r"no queen answers at http://192\.0\.2\.1:9 "):
        await running_queen.find(settings)


async def test_a_machine_that_says_nothing_is_not_said_to_run_something_else(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    with pytest.raises(ConnectionTimeoutError, match=r"no queen answers at http://127\.0\.0\.1:\d+ \(timeout\)"):
        await running_queen.find(settings_of(tmp_path, url, RBEE_TIMEOUTS_CALL="0.2"))


async def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    said = await refused(tmp_path, "nowhere.invalid")
    assert "no queen answers at http://nowhere.invalid:8080 (the host's name is not known)" in said
    assert "check the name nowhere.invalid" in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(b"<h1>Welcome to nginx</h1>", "404 Not Found"), "is not a queen of rbee (HTTP status 404)"),
        (reply(b"<h1>Welcome</h1>"), "is not a queen of rbee"),
        (reply(b'{"status": "fine"}'), "is not a queen of rbee"),
        (reply(b'{"ok": true}', "403 Forbidden"), "is not a queen of rbee (HTTP status 403)"),
        (
            reply(b'{"error":{"code":"MISSING_API_KEY","message":"m"}}', "401 Unauthorized"),
            "a hive or a worker of rbee",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not a queen of rbee"),
        (b"", "is not a queen of rbee"),
        (
            reply(b"", "301 Moved", "Location: https://bees.example/\r\n"),
            "leads on to https://bees.example/, and the token is not taken along",
        ),
        (reply(b"", "307 Temporary", "Location: http://192.0.2.9/health\r\n"), "leads on to http://192.0.2.9/health"),
    ],
)
async def test_what_is_no_queen_is_said_to_be_none(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], answer: bytes, said: str
) -> None:
    server = await scripted(answer)
    assert said in await refused(tmp_path, server.url, PortInUseError)
    assert not any(TOKEN.encode() in request for request in server.requests)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
async def test_a_proxy_that_finds_no_queen(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], status: str
) -> None:
    server = await scripted(reply(b"<h1>nginx</h1>", status))
    assert f"a proxy before it answers, with HTTP status {status[:3]}" in await refused(tmp_path, server.url)


async def test_https_where_plain_http_is_spoken(tmp_path: Path, nursery: trio.Nursery) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(reply(b"", "400 Bad Request"))
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handle, [listener])
    port = listener.socket.getsockname()[1]
    said = await refused(tmp_path, f"https://127.0.0.1:{port}")
    assert "it does not speak https there" in said
    assert f"try http://127.0.0.1:{port}" in said


async def test_https_with_a_certificate_that_is_trusted_or_not(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = self_signed(tmp_path, "127.0.0.1")
    (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(health())
            await stream.aclose()

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    url = f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
    client.certificates.cache_clear()
    said = await refused(tmp_path, url)
    assert "its certificate is not trusted" in said
    assert "SSL_CERT_FILE" in said
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client.certificates.cache_clear()
    try:
        assert await running_queen.find(settings_of(tmp_path, url)) is not None
    finally:
        client.certificates.cache_clear()


# The token.


async def test_a_queen_of_another_swarm_does_not_get_the_token(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]
) -> None:
    server = await scripted(health(swarm="c" * 32))
    settings = settings_of(tmp_path, server.url)
    found = await running_queen.find(settings)
    assert found is not None
    with pytest.raises(KeyRefusedError, match="of another swarm") as caught:
        async with attach(settings, found, Terminal()):
            pass
    assert str(settings.token_file) in caught.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("url", "hint"), [("http://bees.example:1", "ssh bees.example rbee token"), (NOBODY, "must hold")]
)
async def test_without_the_token_it_is_said_where_that_is(tmp_path: Path, url: str, hint: str) -> None:
    found = RunningQueen(url, QueenHealth(status="ok", version=__version__))
    with pytest.raises(StorageError, match="does not exist") as caught:
        async with attach(settings_of(tmp_path, url, None), found, Terminal()):
            pass
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["http://bees.example:1", "http://127.0.0.1:1"])
async def test_a_queen_of_another_interface_that_is_not_ours_is_not_ended_from_here(tmp_path: Path, url: str) -> None:
    found = RunningQueen(url, QueenHealth(status="ok", version="9.9.9", api_version="v3"))
    with pytest.raises(VersionMismatchError) as caught:
        async with attach(settings_of(tmp_path), found, Terminal()):
            pass
    assert caught.value.message.splitlines()[1:] == [f"  rbee-keeper {__version__}", "  queen-rbee  9.9.9"]
    assert f"here and to {found.address.machine}; there, `rbee down`" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("error", "status", "unknown"),
    [
        (b'"code":"ROUTE_NOT_FOUND"', "404 Not Found", "does not know this yet"),
        (b'"code":"METHOD_NOT_ALLOWED"', "405 Method Not Allowed", "does not know this yet"),
        (b'"code":"INVALID_REQUEST","details":{"field":"model","rule":"text"}', "400 Bad Request", None),
    ],
)
async def test_what_an_earlier_version_does_not_know_is_said(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], error: bytes, status: str, unknown: str | None
) -> None:
    server = await scripted(reply(b'{"error":{' + error + b',"message":"m"}}', status))
    found = RunningQueen(server.url, QueenHealth(status="ok", version="0.0.9"))
    with pytest.raises(VersionMismatchError if unknown is not None else InvalidRequestError, match=unknown or "m"):
        async with attach(settings_of(tmp_path, server.url), found, Terminal()) as client:
            await client.workers()


@pytest.mark.parametrize("interface", [None, "v2"])
@pytest.mark.parametrize("version", [__version__, "0.0.9", "9.9.9"])
async def test_a_queen_of_the_same_interface_may_have_any_version(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], version: str, interface: str | None
) -> None:
    """Those of the time before they named their interface too; `--verbose` says once that the versions differ."""
    url = "http://127.0.0.1:1"
    found = RunningQueen(url, QueenHealth(status="ok", version=version, api_version=interface))
    for is_verbose in (False, True):
        terminal = Terminal()
        terminal.verbose = is_verbose
        async with attach(settings_of(tmp_path, url), found, terminal):
            pass
        said = capfd.readouterr().err
        assert said.count("they work together") == (is_verbose and version != __version__)
        assert len(said.splitlines()) <= 1


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("http://bees.invalid:8080", False),  # nobody knows the name, so nothing is sent
        ("http://192.0.2.1:8080", True),
        ("http://[2001:db8::1]:8080/rbee", True),
        ("https://192.0.2.1", False),
        ("http://127.0.0.1:8081", False),
        ("http://localhost:8081", False),
    ],
)
async def test_plain_http_to_another_machine_is_warned_of_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], url: str, warns: bool
) -> None:
    swarm = tokens.swarm_id(TOKEN)
    found = RunningQueen(url, QueenHealth(status="ok", version=__version__, swarm=swarm))
    for expected in (warns, False):
        async with attach(settings_of(tmp_path, url), found, Terminal()):
            pass
        assert ("is not encrypted" in capfd.readouterr().err) is expected


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_the_token_and_a_prompt_are_not_taken_along_by_a_redirection(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], status: str
) -> None:
    target = await scripted(health())
    leads_on = reply(b"", status, f"Location: {target.url}/v2/tasks\r\n")
    server = await scripted(leads_on, leads_on)
    async with attached(tmp_path, server.url) as queen:
        with pytest.raises(InternalError, match="the answer was a redirection"):
            await queen.workers()
        with pytest.raises(InternalError, match="the answer was a redirection"):
            async with queen.place(TaskRequest(prompt="Once")):
                pass
    assert len(server.requests) == 2
    assert target.requests == []


@pytest.mark.parametrize(
    ("url", "node", "said"),
    [
        ("http://192.0.2.1:8080", "local", "node local (192.0.2.1): m"),
        ("http://[2001:db8::1]", "local", "node local (2001:db8::1): m"),
        ("http://192.0.2.1:8080", "attic", "node attic: m"),
        ("http://127.0.0.1:8081", "local", "node local: m"),
        ("", "local", "node local: m"),
    ],
)
def test_the_queens_own_host_is_named_where_it_is_another(tmp_path: Path, url: str, node: str, said: str) -> None:
    error = InternalError("m", node=node)
    name_node(error, settings_of(tmp_path, url))
    assert error.message == said


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "https://bees.example/rbee", "http://127.0.0.1:8081"])
def test_no_token_is_made_for_a_queen_that_is_named(tmp_path: Path, url: str) -> None:
    settings = settings_of(tmp_path, url, None)
    with pytest.raises(StorageError, match="only that queen can make it"):
        token.run(cast("Options", None), settings, Terminal())
    assert not settings.token_file.exists()


# The way to its workers.


def attached(folder: Path, url: str) -> AttachedQueen:
    return AttachedQueen(
        RunningQueen(url, QueenHealth(status="ok", version=__version__)), TOKEN, settings_of(folder, url)
    )


def handle(url: str) -> TaskHandle:
    where = {"request_id": "", "node": "local", "worker_id": WORKER, "api_key": "rbee_w_key"}
    return TaskHandle(**where, worker_url=url, state="idle")


def alive(worker_id: str) -> bytes:
    text = f'{{"status":"alive","version":"{__version__}","api_version":"v1","worker_id":"{worker_id}"}}'
    return reply(text.encode())


async def test_a_worker_that_names_itself_is_gone_to_and_has_not_got_the_key_before(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]]
) -> None:
    server = await scripted(alive(WORKER))
    assert await is_reached(handle(server.url), attached(tmp_path, "http://127.0.0.1:1"), seconds=60)
    (asked,) = server.requests
    assert b"uthorization" not in asked


@pytest.mark.parametrize(
    "answer", [alive("00000000-1a6c-4a2c-8a3c-0123456789ab"), reply(b"<h1>nginx</h1>"), b"", b"SSH-2.0-OpenSSH\r\n"]
)
async def test_a_stranger_at_its_address_gets_nothing_and_is_remembered(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], answer: bytes
) -> None:
    server = await scripted(answer, alive(WORKER))
    queen = attached(tmp_path, "http://127.0.0.1:1")
    assert not await is_reached(handle(server.url), queen, seconds=60)
    assert not await is_reached(handle(server.url), queen), "it is remembered"
    assert len(server.requests) == 1
    assert queen.unreached == ["127.0.0.1"]
    assert attached(tmp_path, "http://127.0.0.1:2").unreached == [], "another queen leads elsewhere"


@pytest.mark.parametrize(
    ("queen", "is_asked"),
    [
        ("http://192.0.2.1:8080", False),  # its loopback is another machine's
        ("https://192.0.2.1", False),
        ("https://127.0.0.1:8443", True),
        ("http://127.0.0.1:8081", True),  # another user's on this machine, or one behind a tunnel
    ],
)
async def test_a_worker_at_loopback_is_tried_where_the_queen_may_be_here(
    tmp_path: Path, scripted: Callable[..., Awaitable[Scripted]], queen: str, is_asked: bool
) -> None:
    server = await scripted(alive(WORKER))
    assert await is_reached(handle(server.url), attached(tmp_path, queen), seconds=60) is is_asked
    assert bool(server.requests) is is_asked


@pytest.mark.parametrize("url", ["http://0.0.0.0:8001", "http://[::]:8001", "http://127.0.0.1:9"])
async def test_a_queen_of_yesterday_may_name_an_address_that_leads_here(tmp_path: Path, url: str) -> None:
    assert not await is_reached(handle(url), attached(tmp_path, "http://192.0.2.1:8080"))


async def test_what_is_sent_through_a_tunnel_does_not_go_to_a_worker_in_the_open(tmp_path: Path) -> None:
    assert not await is_reached(handle("http://192.0.2.7:8001"), attached(tmp_path, "http://127.0.0.1:8081"))


def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    queen = attached(tmp_path, "http://192.0.2.1:8080")
    (tmp_path / "queens.json").write_bytes(b"\xff{")
    assert queen.unreached == []
    queen.add_unreached("192.0.2.7")
    assert queen.unreached == ["192.0.2.7"]


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("http://192.0.2.1:9000", "`ssh -N -L 8081:127.0.0.1:9000 192.0.2.1`"),
        ("http://box", "`ssh -N -L 8081:127.0.0.1:8080 box`"),
        ("http://[2001:db8::1]:8080", "`ssh -N -L 8081:127.0.0.1:8080 2001:db8::1`"),
        ("http://127.0.0.1:8081", "`ssh -N -L 8081:127.0.0.1:8080 MACHINE`"),
    ],
)
def test_a_tunnel_leads_to_the_port_that_is_named(url: str, command: str) -> None:
    assert QueenAddress(url, is_named=True).tunnel == command


# What is said of it.


def test_a_log_is_on_the_machine_that_it_is_on(tmp_path: Path) -> None:
    queen = attached(tmp_path, "http://192.0.2.1:8080")
    assert queen.log_place("/x/worker-1.log", "attic") == "worker-1.log in the folder of logs on attic"
    assert queen.log_place("hive.log").startswith("hive.log in the folder of logs on the queen's machine (192.0.2.1:80")
    assert str(tmp_path) not in queen.log_place("hive.log")
