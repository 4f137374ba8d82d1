"""Who is let in at the queen, over real sockets: keys, users, names and browsers' pages."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from rbee.adapters.config import ApiSettings
from rbee.adapters.http.app import answer, new_app
from rbee.adapters.store.sqlite import Store
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import TABLE, KeyTable
from rbee.queen.routes.guard import AccessGuard, identity
from rbee.wire.administration.keys import KeyRequest
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from quart import Response
    from quart_trio import QuartTrio

TOKEN = "rbee_token"
STRANGER = 54321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a connection as another user")
PAGE = "https://chat.example"


class Served:
    """A queen's guard before three routes."""

    def __init__(self, keys: ApiKeys, serve: Callable[[QuartTrio], Awaitable[str]]) -> None:
        self.keys = keys
        self._serve = serve

    async def start(self, **api: Any) -> str:
        guard = AccessGuard(TOKEN, self.keys, ApiSettings(**api), {"bees.example"}, {"/health"})
        app = new_app("test", guard.admit)
        guard.add(app)

        async def who() -> Response:
            found = identity()
            return answer([found.kind, found.name])

        for path in ("/health", "/v1/models", "/v2/keys"):
            app.add_url_rule(path, path.replace("/", ""), who, methods=["GET", "POST"])
        return await self._serve(app)

    async def key(self, name: str = "alice", **what: Any) -> str:
        return (await self.keys.create(KeyRequest(name=name, **what))).key


@pytest.fixture
async def served(tmp_path: Path, serve_app: Callable[[QuartTrio], Awaitable[str]]) -> AsyncIterator[Served]:
    store = await Store.open(tmp_path / "beehives.db", (TABLE,))
    yield Served(ApiKeys(KeyTable(store)), serve_app)
    await store.close()


async def ask(url: str, path: str = "/v1/models", method: str = "GET", **headers: str) -> tuple[int, Any]:
    """Return the status, and who was let in or the code of the refusal."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=url, **LOCAL, headers=given) as client:
        response = await client.request(method, path)
    found = response.json()
    return response.status_code, found["error"]["code"] if "error" in found else found


async def as_another(url: str, path: str = "/v1/models", **headers: str) -> tuple[int, Any]:
    """Ask as another user of this machine: a program of its own, whose connection is its user's from the beginning."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\\r\\n" for name, value in headers.items())
    host, port = httpx.URL(url).host, httpx.URL(url).port
    program = (
        f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\n{lines}"
        "Connection: close\\r\\n\\r\\n' >&3; cat <&3"
    )
    done = await trio.run_process(["bash", "-c", program], user=STRANGER, capture_stdout=True)
    head, _, text = done.stdout.decode().partition("\r\n\r\n")
    found = json.loads(text)
    return int(head.split()[1]), found["error"]["code"] if "error" in found else found


async def test_our_own_user_needs_no_key_to_use_models_and_an_unknown_key_counts_as_none(served: Served) -> None:
    url = await served.start()
    assert await ask(url) == (200, ["local", "local"])
    assert await ask(url, Authorization="Bearer sk-no-key-required") == (200, ["local", "local"])
    assert await ask(url, x_api_key="ollama") == (200, ["local", "local"])
    assert await ask(url, "/v2/keys") == (401, "MISSING_API_KEY")
    assert await ask(url, "/v2/keys", Authorization="Bearer sk-x") == (401, "INVALID_API_KEY")
    assert await ask(url, "/health") == (200, ["public", "public"])


async def test_a_key_opens_by_either_header_and_administers_nothing(served: Served) -> None:
    url, key = await served.start(), await served.key()
    bearer = {"Authorization": f"Bearer {key}"}
    for headers in (bearer, {"x_api_key": key}, {"Authorization": "Bearer x", "x_api_key": key}):
        assert await ask(url, **headers) == (200, ["key", "alice"])
    assert await ask(url, "/v2/keys", Authorization=f"Bearer {key}") == (403, "FORBIDDEN")
    assert await ask(url, "/v2/keys", x_api_key=key) == (401, "MISSING_API_KEY")
    assert await ask(url, Authorization=f"Bearer {TOKEN}") == (200, ["token", "token"])
    assert await ask(url, "/v2/keys", Authorization=f"Bearer {TOKEN}") == (200, ["token", "token"])
    assert await ask(url, "/v2/keys", x_api_key=TOKEN) == (401, "MISSING_API_KEY")


@AS_ROOT
async def test_another_user_needs_a_right_key(served: Served) -> None:
    url, key = await served.start(), await served.key()
    assert await as_another(url) == (401, "MISSING_API_KEY")
    assert await as_another(url, x_api_key="ollama") == (401, "INVALID_API_KEY")
    assert await as_another(url, x_api_key=key) == (200, ["key", "alice"])
    await served.keys.revoke("alice")
    assert await as_another(url, x_api_key=key) == (401, "INVALID_API_KEY")


@AS_ROOT
async def test_where_everyone_may_infer_nobody_else_administers(served: Served) -> None:
    url = await served.start(open=True)
    assert await as_another(url) == (200, ["open", "open"])
    assert await as_another(url, "/v2/keys") == (401, "MISSING_API_KEY")
    assert await as_another(url, Origin="https://evil.example") == (403, "FORBIDDEN")


async def test_a_proxy_of_our_own_user_asks_for_others(served: Served) -> None:
    url, key = await served.start(), await served.key()
    for header in ("X_Forwarded_For", "x-forwarded-host", "Forwarded", "X_Real_IP", "Via", "CF-Connecting-IP"):
        assert await ask(url, **{header: "192.0.2.7"}) == (401, "MISSING_API_KEY")
        assert await ask(url, **{header: "192.0.2.7", "x_api_key": key}) == (200, ["key", "alice"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
async def test_a_name_that_came_to_mean_us_opens_nothing(served: Served, host: str) -> None:
    url, key = await served.start(), await served.key()
    assert await ask(url, Host=host) == (403, "FORBIDDEN")
    assert await ask(url, Host=host, x_api_key=key) == (403, "FORBIDDEN")
    assert await ask(url, Host=host, Origin=f"http://{host}") == (403, "FORBIDDEN")
    assert await ask(url, "/nowhere", Host=host) == (403, "FORBIDDEN")
    assert await ask(url, Host=host, Authorization=f"Bearer {TOKEN}") == (200, ["token", "token"])
    assert await ask(url, "/health", Host=host) == (200, ["public", "public"])


async def test_a_name_of_this_machine_opens(served: Served) -> None:
    url = await served.start()
    for host in ("localhost", "bees.example:8080", "127.0.0.1", "[::1]:8080", "attic"):
        assert await ask(url, Host=host) == (200, ["local", "local"])


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://evil.example:8080", "moz-extension://x"])
async def test_a_page_of_another_site_gets_nothing(served: Served, origin: str) -> None:
    url, key = await served.start(), await served.key()
    for headers in ({}, {"x_api_key": key}, {"Authorization": f"Bearer {TOKEN}"}):
        for method in ("GET", "POST"):
            assert await ask(url, method=method, Origin=origin, **headers) == (403, "FORBIDDEN")
    async with httpx.AsyncClient(base_url=url, **LOCAL, headers={"Origin": origin}) as client:
        assert "Access-Control-Allow-Origin" not in (await client.get("/v1/models")).headers
        asked = await client.options("/v1/models", headers={"Access-Control-Request-Method": "POST"})
    assert asked.status_code == 403
    assert not [name for name in asked.headers if name.startswith("access-control")]


async def test_a_page_gets_no_picture_either_but_a_link_may_be_clicked(served: Served) -> None:
    """Neither has an Origin."""
    url = await served.start()
    assert await ask(url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == (403, "FORBIDDEN")
    assert await ask(url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == (200, ["local", "local"])
    assert await ask(url, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate") == (200, ["local", "local"])
    assert await ask(url, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors") == (200, ["local", "local"])


async def test_a_page_that_may_is_answered_as_browsers_want_it(served: Served) -> None:
    url = await served.start(origins=(PAGE,))
    headers = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    asks |= {"Access-Control-Request-Private-Network": "true"}
    for origin in (PAGE, "http://localhost:3000"):
        async with httpx.AsyncClient(base_url=url, **LOCAL, headers={"Origin": origin}) as client:
            asked = await client.options("/v1/models", headers=asks)
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["Access-Control-Allow-Origin"] == origin
            assert "POST" in asked.headers["Access-Control-Allow-Methods"]
            assert asked.headers["Access-Control-Allow-Headers"] == headers
            assert asked.headers["Access-Control-Allow-Private-Network"] == "true"
            got = await client.get("/v1/models")
            assert got.headers["Access-Control-Allow-Origin"] == origin
            assert got.headers["Vary"] == "Origin"
            assert "X-Request-Id" in got.headers["Access-Control-Expose-Headers"]
            lost = await client.get("/v1/nowhere")
            assert (lost.status_code, lost.headers["Access-Control-Allow-Origin"]) == (404, origin)
            odd = await client.options("/v1/models", headers=asks | {"Access-Control-Request-Headers": "a(b)"})
            assert "Access-Control-Allow-Headers" not in odd.headers


async def test_no_page_administers_by_way_of_a_browser(served: Served) -> None:
    url = await served.start(origins=(PAGE,))
    async with httpx.AsyncClient(base_url=url, **LOCAL, headers={"Origin": PAGE}) as client:
        asked = await client.options("/v2/keys", headers={"Access-Control-Request-Method": "POST"})
        assert asked.status_code == 401
        got = await client.get("/v2/keys", headers={"Authorization": f"Bearer {TOKEN}"})
    assert not [name for each in (asked, got) for name in each.headers if name.startswith("access-control")]


async def test_a_page_without_a_key_is_told_so_in_a_way_that_it_can_read(served: Served) -> None:
    url = await served.start(origins=(PAGE,))
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        got = await client.get("/v1/models", headers={"Origin": PAGE, "Via": "1.1 proxy"})
    assert (got.status_code, got.headers["Access-Control-Allow-Origin"]) == (401, PAGE)


async def test_an_expired_key_opens_nothing(served: Served) -> None:
    url, key = await served.start(), await served.key(expires_s=3600)
    assert await ask(url, x_api_key=key, Via="proxy") == (200, ["key", "alice"])
    served.keys._now = lambda: time.time() + 3601
    assert await ask(url, x_api_key=key, Via="proxy") == (401, "INVALID_API_KEY")
    assert await ask(url, x_api_key=key) == (200, ["local", "local"])
