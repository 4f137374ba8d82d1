"""One error shape over every route of queen and hive, and each of them documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import rbee.hive.routes.app
import rbee.queen.routes.app
from rbee.adapters import config
from rbee.adapters.config import Timeouts
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.store.sqlite import Store
from rbee.hive import tables
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models.library import Library
from rbee.hive.routes.context import HiveContext
from rbee.hive.workers.processes import LocalMachine
from rbee.hive.workers.supervisor import WorkerSupervisor
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import TABLE, KeyTable
from rbee.queen.hives.local import LocalHive
from rbee.queen.nodes.nodes import Nodes
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.registry.table import MIGRATIONS, Registry
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes.context import QueenContext
from rbee.wire import hive as hive_wire
from rbee.wire import model_push as model_push_wire
from rbee.wire import models as models_wire
from rbee.wire import queen as queen_wire
from rbee.wire import registry as registry_wire
from rbee.wire.administration import aliases as alias_wire
from rbee.wire.administration import keys as keys_wire
from rbee.wire.dialects import openai_request as openai_wire
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import trio
    from quart_trio import QuartTrio

TOKEN = "rbee_token"
DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
PUBLIC = {"queen": {queen_wire.HEALTH}, "hive": {hive_wire.HEALTH}}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
ROLES = ["queen", "hive"]


@pytest.fixture
async def apps(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, QuartTrio]]:
    """The applications of queen and hive, with what stands behind them."""
    monkeypatch.setenv("RBEE_HOME", str(tmp_path))
    monkeypatch.setenv("RBEE_HIVE_PORT", "0")
    settings = config.load()
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    library = Library(settings, Catalogue(settings.paths.models, store.transact), TOKEN)
    machine = LocalMachine(settings, library, TOKEN, "http://127.0.0.1:1")
    hive = WorkerSupervisor(Timeouts(), machine, store.transact)
    nursery.start_soon(hive.run)
    nodes_store = await Store.open(tmp_path / "beehives.db", (*MIGRATIONS, TABLE))
    keys = ApiKeys(KeyTable(nodes_store))
    registry = Registry(nodes_store)
    identities = HiveIdentities(TOKEN)
    local = LocalHive(settings, TOKEN, None, identities, ephemeral=False)
    nodes = Nodes(settings, TOKEN, registry, identities, local)
    await nursery.start(nodes.run)
    hive_context = HiveContext(settings, TOKEN, hive, library, nursery, lambda: None)
    tracker = RequestTracker()
    context = QueenContext(settings, TOKEN, registry, nodes, tracker, KeptConnections(), nursery, Stopping(), keys)
    yield {
        "queen": rbee.queen.routes.app.build(context),
        "hive": rbee.hive.routes.app.build(hive_context),
    }
    await store.close()
    await nodes_store.close()


def routes(app: QuartTrio) -> list[tuple[str, set[str]]]:
    """Return each path, with something in place of its parameters, and its methods."""
    found: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "x", rule.rule)
        found.setdefault(path, set()).update((rule.methods or set()) & METHODS)
    assert len(found) >= 5
    return sorted(found.items())


def check(response: httpx.Response, role: str, *statuses: int) -> dict[str, Any]:
    """Check that an answer is an error object, whole and without more: OpenAI's on the queen's paths of OpenAI."""
    assert response.status_code in statuses, (response.request.url, response.text)
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    if role == "queen" and response.request.url.path.startswith("/v1/"):
        assert list(error) == ["message", "type", "param", "code"]
        has_key = "Authorization" in response.request.headers
        codes = {
            None: "INVALID_REQUEST",
            "invalid_api_key": "INVALID_API_KEY" if has_key else "MISSING_API_KEY",
            "method_not_allowed": "METHOD_NOT_ALLOWED",
        }
        return {"code": codes[error["code"]], "details": {"rule": error["message"]}}
    assert {"code", "message", "details", "correlation_id"} <= set(error)
    assert set(error) <= {"code", "message", "details", "correlation_id", "hint"}
    assert error["correlation_id"] == response.headers["X-Correlation-Id"]
    return error


@pytest.mark.parametrize("role", ROLES)
async def test_without_a_key_nothing_but_health_is_answered(
    role: str, apps: dict[str, QuartTrio], serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> None:
    url = await serve_app(apps[role])
    # Without it this is a program of the queen's own user, which needs no key for inference.
    headers = {"X-Forwarded-For": "192.0.2.1"}
    async with httpx.AsyncClient(base_url=url, headers=headers, **LOCAL) as client:
        for path, methods in routes(apps[role]):
            for method in methods:
                if path in PUBLIC[role]:
                    assert (await client.request(method, path)).status_code == 200
                    continue
                response = await client.request(method, path)
                assert check(response, role, 401)["code"] == "MISSING_API_KEY"
                assert response.headers["WWW-Authenticate"] == "Bearer"
                wrong = await client.request(method, path, headers={"Authorization": "Bearer wrong"})
                assert check(wrong, role, 401)["code"] == "INVALID_API_KEY"


@pytest.mark.parametrize("role", ROLES)
async def test_a_method_that_a_path_does_not_take_is_an_error_object(
    role: str, apps: dict[str, QuartTrio], serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> None:
    url = await serve_app(apps[role])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, **LOCAL, headers=headers) as client:
        for path, methods in routes(apps[role]):
            for method in METHODS - methods:
                error = check(await client.request(method, path), role, 404, 405)
                if method == "DELETE" and error["code"] in ("WORKER_NOT_FOUND", "MODEL_NOT_FOUND"):
                    continue  # the path stands where an id may stand
                assert error["code"] == "METHOD_NOT_ALLOWED"
                assert all(allowed in error["details"]["rule"] for allowed in methods)


@pytest.mark.parametrize("role", ROLES)
async def test_a_body_that_is_none_is_an_error_object(
    role: str, apps: dict[str, QuartTrio], serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> None:
    """Every call that reads a body; the others ignore it."""
    url = await serve_app(apps[role])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    registry = {registry_wire.ADD, registry_wire.UPDATE, registry_wire.REMOVE, registry_wire.INSTALL}
    models = {models_wire.DOWNLOAD, models_wire.SWARM_PULL, models_wire.SWARM_REMOVE}
    models |= {model_push_wire.PUSH, model_push_wire.SWARM_PUSH}
    reading = {
        queen_wire.TASKS,
        keys_wire.KEYS,
        alias_wire.ALIASES,
        alias_wire.REMOVE,
        openai_wire.CHAT,
        openai_wire.TEXT,
        queen_wire.WORKERS_SHUTDOWN,
        hive_wire.WORKERS_SPAWN,
        hive_wire.WORKERS_READY,
        *registry,
        *models,
    }
    async with httpx.AsyncClient(base_url=url, **LOCAL, headers=headers) as client:
        for path, methods in routes(apps[role]):
            if "POST" not in methods:
                continue
            response = await client.post(path, content=b"\xff{")
            if path in reading:
                assert check(response, role, 400)["code"] == "INVALID_REQUEST"
            else:
                assert response.status_code == 202


@pytest.mark.parametrize("role", ROLES)
async def test_every_route_is_documented(role: str, apps: dict[str, QuartTrio]) -> None:
    section = DOCUMENT.read_text().partition(f"## {role.capitalize()}")[2].partition("\n## ")[0]
    documented = set(re.findall(r"/[a-z0-9/.]+(?:\{[a-z_]+\})?", section))
    for rule in apps[role].url_map.iter_rules():
        parts = rule.rule.partition("<")
        assert any(found.partition("{")[0] == parts[0] and ("{" in found) == bool(parts[1]) for found in documented), (
            rule.rule
        )


@pytest.mark.parametrize("role", ROLES)
async def test_every_documented_path_is_there(role: str, apps: dict[str, QuartTrio]) -> None:
    section = DOCUMENT.read_text().partition(f"## {role.capitalize()}")[2].partition("\n## ")[0]
    there = {re.sub(r"<[^>]+>", "{}", rule.rule) for rule in apps[role].url_map.iter_rules()}
    first_cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("|")]
    documented = {re.sub(r"\{[^}]+\}", "{}", path) for cell in first_cells for path in re.findall(r"`(/[^`?]+)`", cell)}
    assert len(documented) >= 5
    assert documented <= there


async def test_the_queens_description_has_each_route_and_no_other(
    apps: dict[str, QuartTrio], serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> None:
    there: dict[str, set[str]] = {}
    for rule in apps["queen"].url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        there.setdefault(path, set()).update(method.lower() for method in (rule.methods or set()) & METHODS)
    async with httpx.AsyncClient(base_url=await serve_app(apps["queen"]), **LOCAL) as client:
        response = await client.get(openai_wire.OPENAPI, headers={"Authorization": f"Bearer {TOKEN}"})
    found = response.json()
    assert {path: set(operations) for path, operations in found["paths"].items()} == there
    references = set(re.findall(r'"#/components/schemas/(\w+)"', response.text))
    assert references == set(found["components"]["schemas"])
    assert "\\Z" not in response.text


def test_no_route_reads_a_body_by_itself() -> None:
    """`raw_body` sees to it that it moves, and may take longer than the minute that quart gives it."""
    folder = Path(rbee.hive.routes.app.__file__).parents[2]
    readers = [path for path in folder.rglob("*.py") if ".get_data(cache" in path.read_text("utf-8")]
    assert readers == [folder / "adapters" / "http" / "app.py"]
