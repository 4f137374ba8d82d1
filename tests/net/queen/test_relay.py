"""A task whose answer comes through the queen, from a worker that behaves and from some that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import trio
from quart import request

from rbee.adapters import config
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, empty, new_app, streamed, with_keys
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.tokens import worker_key
from rbee.errors import AllSlotsBusyError
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import KeyTable
from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.requests.events import Generated
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes import app as routes
from rbee.queen.routes.context import QueenContext
from rbee.queen.routes.tasks import encode
from rbee.queen.scheduling.place_request import Placed
from rbee.wire import worker as wire
from rbee.wire.common import KEEP_HEADER
from rbee.wire.hive import EndedWorker, WorkerGone, WorkerList, WorkerRow
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.store.sqlite import Store
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.wire.common import WorkerState

TOKEN = "rbee_token"
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
TASK = {"prompt": "Once", "relay": True, "request_id": UUID, "seed": 7, "top_k": 3, "max_tokens": 2}
LOADING = wire.Readiness(ready=False, state="loading")
IDLE = wire.Readiness(ready=True, state="idle", model_loaded=True)
EVENTS: list[Any] = [wire.Token(token="upon", index=0), wire.Done(total_tokens=1, duration_ms=1, stop_reason="eos")]


class StandIn:
    """A node with one worker, whose state and answer the test chooses."""

    name = "local"
    is_direct = True
    is_everywhere = False

    def __init__(self) -> None:
        self.state = IDLE
        self.placed: WorkerState = "loading"
        self.asked = trio.Event()
        self.inferences: list[wire.InferenceRequest] = []
        self.kept: list[str | None] = []
        self.cancelled: list[str] = []
        self.listed: list[EndedWorker] = []
        self.mirror = HiveMirror()
        self.url = ""
        self.is_busy = False
        self.rows: list[WorkerRow] = []

    def worker_url(self, url: str) -> str:
        return url

    async def workers(self) -> WorkerList:
        return WorkerList(workers=self.rows, ended=self.listed)

    def why_full(self, wanted: object, caller: str) -> None:
        return None

    async def place(
        self, wanted: object, report: object, wait: float, *, must_ask: bool, may_move: bool, **options: object
    ) -> Placed:
        return Placed("w", self.url, self.placed)

    def app(self, nursery: trio.Nursery) -> QuartTrio:
        app = new_app("worker", with_keys(lambda _: (worker_key(TOKEN, "w"),), {wire.READY}))

        @app.get(wire.READY)
        async def ready() -> Response:
            self.asked.set()
            return answer(self.state)

        @app.post(wire.INFERENCE)
        async def inference() -> Response:
            self.inferences.append(await body(wire.InferenceRequest))
            self.kept.append(request.headers.get(KEEP_HEADER))
            if self.is_busy:
                raise AllSlotsBusyError("all slots are busy")

            async def produce(send: sse_server.Send) -> None:
                for event in EVENTS:
                    await send.send(sse_server.event(event))

            return streamed(nursery, produce)

        @app.delete(f"{wire.INFERENCE}/<request_id>")
        async def cancel(request_id: str) -> Response:
            self.cancelled.append(request_id)
            return empty(204)

        return app


class OneNode:
    """A swarm of this node alone."""

    def __init__(self, node: StandIn) -> None:
        self._node = node

    def get(self, name: str) -> StandIn:
        return self._node

    def all(self) -> list[StandIn]:
        return [self._node]


@pytest.fixture
async def worker(nursery: trio.Nursery, serve_app: Callable[[QuartTrio], Awaitable[str]]) -> StandIn:
    found = StandIn()
    found.url = await serve_app(found.app(nursery))
    return found


@pytest.fixture
def queen_settings() -> config.Settings:
    return config.Settings()


@pytest.fixture
async def queen(
    worker: StandIn,
    nursery: trio.Nursery,
    serve_app: Callable[[QuartTrio], Awaitable[str]],
    queen_settings: config.Settings,
) -> AsyncIterator[httpx.AsyncClient]:
    nodes = cast("Nodes", OneNode(worker))
    registry = cast("Registry", None)  # no task asks it
    connections = KeptConnections()
    nursery.start_soon(connections.run)
    keys = ApiKeys(KeyTable(cast("Store", None)))  # none is made
    tracker = RequestTracker()
    context = QueenContext(queen_settings, TOKEN, registry, nodes, tracker, connections, nursery, Stopping(), keys)
    url = await serve_app(routes.build(context))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, **LOCAL) as client:
        yield client


def events_of(text: str) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(item) for item in data]


def ended(reason: str, code: str | None = None) -> EndedWorker:
    return EndedWorker(
        id="w", model_ref="m", backend="cpu", device=0, pid=7, reason=reason, code=code, ended_at=1, log="w.log",
        last_lines=["x"],
    )  # fmt: skip


async def test_the_workers_events_follow_the_worker(worker: StandIn, queen: httpx.AsyncClient) -> None:
    response = await queen.post("/v2/tasks", json=TASK)
    handle, token, done = events_of(response.text)
    assert (handle["worker_id"], handle["request_id"]) == ("w", UUID)
    assert (token["token"], done["stop_reason"]) == ("upon", "eos")
    (asked,) = worker.inferences
    assert (asked.prompt, asked.request_id, asked.seed, asked.top_k, asked.max_tokens) == ("Once", UUID, 7, 3, 2)


@pytest.mark.parametrize(
    ("asked", "setting", "kept"), [(None, None, None), ("60", None, 60), (None, 7200.0, 7200), ("0", 7200.0, 0)]
)
async def test_how_long_the_worker_stays_reaches_it_and_who_asks_it(
    worker: StandIn,
    queen: httpx.AsyncClient,
    queen_settings: config.Settings,
    asked: str | None,
    setting: float | None,
    kept: float | None,
) -> None:
    queen_settings.queen.keep = setting
    headers = {} if asked is None else {KEEP_HEADER: asked}
    handle = events_of((await queen.post("/v2/tasks", json=TASK, headers=headers)).text)[0]
    assert handle.get("keep_s") == kept
    assert [None if header is None else float(header) for header in worker.kept] == [kept]


@pytest.mark.parametrize("keep", ["", "soon", "-1", "nan", "inf", "315360001"])
async def test_a_time_to_stay_that_is_none_is_refused(queen: httpx.AsyncClient, keep: str) -> None:
    response = await queen.post("/v2/tasks", json=TASK, headers={KEEP_HEADER: keep})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert response.json()["error"]["message"] == "header X-Keep-Seconds: a number of seconds from 0 to 315360000"


async def test_a_failed_load_is_the_end_of_the_stream(worker: StandIn, queen: httpx.AsyncClient) -> None:
    worker.state = wire.Readiness(
        ready=False, state="failed", error={"code": "MODEL_LOAD_FAILED", "message": "no GGUF"}
    )
    events = events_of((await queen.post("/v2/tasks", json=TASK)).text)
    assert (events[-1]["error"]["code"], events[-1]["error"]["message"]) == ("MODEL_LOAD_FAILED", "no GGUF")
    assert worker.inferences == []


async def test_a_worker_that_is_gone_before_it_answers_has_failed(worker: StandIn, queen: httpx.AsyncClient) -> None:
    worker.placed, worker.url = "idle", "http://127.0.0.1:1"
    worker.listed = [ended("SIGKILL")]
    error = events_of((await queen.post("/v2/tasks", json=TASK)).text)[-1]["error"]
    assert (error["code"], error["message"]) == ("WORKER_FAILED", "the worker was lost before it answered: SIGKILL")


@pytest.mark.parametrize(
    ("code", "told", "message"),
    [
        (None, "WORKER_FAILED", "the worker ended while it loaded its model: SIGILL"),
        ("LOADING_TIMEOUT", "LOADING_TIMEOUT", "SIGILL"),
        ("UNLOAD_FAILED", "WORKER_FAILED", "the worker ended while it loaded its model: SIGILL"),
    ],
)
async def test_why_a_worker_ended_that_loaded_is_told(
    worker: StandIn, queen: httpx.AsyncClient, code: str | None, told: str, message: str
) -> None:
    worker.url = "http://127.0.0.1:9"
    worker.listed = [ended("SIGILL", code)]
    error = events_of((await queen.post("/v2/tasks", json=TASK)).text)[-1]["error"]
    assert (error["code"], error["message"]) == (told, message)
    assert error["details"] == {"node": "local", "pid": 7, "log": "w.log", "last_lines": ["x"]}


async def test_a_worker_that_shuts_down_while_it_loads_is_no_failure(worker: StandIn, queen: httpx.AsyncClient) -> None:
    worker.state = wire.Readiness(ready=False, state="draining")
    error = events_of((await queen.post("/v2/tasks", json=TASK)).text)[-1]["error"]
    assert error["code"] == "SHUTTING_DOWN"


@pytest.mark.parametrize("placed", ["loading", "idle"])
async def test_a_worker_that_was_told_to_end_just_before_it_was_asked_is_no_failure(
    worker: StandIn, queen: httpx.AsyncClient, placed: WorkerState
) -> None:
    """Its hive has told so, and may have ended too."""
    worker.placed, worker.url = placed, "http://127.0.0.1:1"
    worker.mirror.on_hive_event(WorkerGone(id="w"))
    error = events_of((await queen.post("/v2/tasks", json=TASK)).text)[-1]["error"]
    assert (error["code"], error["message"]) == ("SHUTTING_DOWN", "the worker was told to end")


async def test_what_the_events_tell_of_an_end_goes_before_what_the_list_does(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    worker.placed, worker.url = "idle", "http://127.0.0.1:1"
    worker.mirror.on_hive_event(WorkerGone(id="w", ended=ended("SIGKILL")))
    error = events_of((await queen.post("/v2/tasks", json=TASK)).text)[-1]["error"]
    assert (error["code"], error["message"]) == ("WORKER_FAILED", "the worker was lost before it answered: SIGKILL")


async def test_a_task_can_be_cancelled_while_its_worker_loads(worker: StandIn, queen: httpx.AsyncClient) -> None:
    worker.state = LOADING
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await queen.post("/v2/tasks", json=TASK)).text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await worker.asked.wait()
        assert (await queen.delete(f"/v2/tasks/{UUID}")).status_code == 204
        worker.state = IDLE
    assert events_of(texts[0])[-1]["error"]["code"] == "CANCELLED"
    assert worker.cancelled == [UUID]
    assert worker.inferences == []


def test_what_the_worker_generates_is_passed_on_as_it_came_and_can_be_read() -> None:
    data = '{"token":"über","index":3,"new":1}'
    generated = Generated("message", data)
    assert encode(generated) == f"data: {data}\n\n".encode()
    assert generated.decode() == wire.Token(token="über", index=3)
    assert Generated("from_a_newer_version", "{}").decode() is None


PLAIN = TASK | {"relay": False}
PREFERRED = {"Accept": "text/event-stream", "Prefer": "relay-if-needed"}


async def test_where_only_the_queen_reaches_the_worker_its_events_follow_if_the_caller_prefers_so(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    worker.is_direct = False
    handle, token, _ = events_of((await queen.post("/v2/tasks", json=PLAIN, headers=PREFERRED)).text)
    assert (handle["direct"], handle["relayed"], handle["state"]) == (False, True, "idle")
    assert token["token"] == "upon"
    assert [asked.prompt for asked in worker.inferences] == ["Once"]


async def test_a_caller_that_has_tried_the_workers_host_in_vain_gets_its_answer_through_the_queen(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    headers = PREFERRED | {"Prefer": 'relay-if-needed; unreached="192.0.2.1 127.0.0.1"'}
    handle, token, _ = events_of((await queen.post("/v2/tasks", json=PLAIN, headers=headers)).text)
    assert (handle["direct"], handle["relayed"], handle["state"]) == (False, True, "idle")
    assert token["token"] == "upon"


async def test_a_worker_that_the_caller_reaches_is_answered_as_a_handle_whatever_it_prefers(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    (handle,) = events_of((await queen.post("/v2/tasks", json=PLAIN, headers=PREFERRED)).text)
    assert (handle["direct"], handle["relayed"]) == (True, False)
    assert worker.inferences == []


async def test_without_the_preference_a_worker_that_only_the_queen_reaches_is_answered_as_a_handle(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    worker.is_direct = False
    for headers in ({"Accept": "text/event-stream"}, PREFERRED | {"Prefer": "respond-async"}):
        (handle,) = events_of((await queen.post("/v2/tasks", json=PLAIN, headers=headers)).text)
        assert (handle["direct"], handle["relayed"]) == (False, False)
    assert worker.inferences == []


async def test_a_caller_that_prefers_the_relay_hears_of_a_busy_worker_itself(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    worker.is_direct, worker.is_busy = False, True
    events = events_of((await queen.post("/v2/tasks", json=PLAIN | {"wait_s": 60}, headers=PREFERRED)).text)
    assert events[-1]["error"]["code"] == "ALL_SLOTS_BUSY"
    assert len(worker.inferences) == 1


async def failure(queen: httpx.AsyncClient, request_id: str = UUID) -> Any:
    response = await queen.get(f"/v2/tasks/{request_id}/failure")
    assert response.status_code == 200
    return response.json()["error"]


async def test_a_caller_that_was_given_a_worker_can_ask_why_that_ended(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    assert await failure(queen) is None, "nobody knows the task"
    await queen.post("/v2/tasks", json=PLAIN)
    worker.listed = [ended("SIGKILL")]
    error = await failure(queen)
    assert (error["code"], error["message"]) == ("WORKER_FAILED", "the worker (pid 7) ended: SIGKILL")
    assert error["details"] == {"pid": 7, "log": "w.log", "last_lines": ["x"]}
    worker.mirror.on_hive_event(WorkerGone(id="w"))
    error = await failure(queen)
    assert (error["code"], error["details"]) == ("SHUTTING_DOWN", {"worker_id": "w"})
    worker.mirror.on_hive_event(WorkerGone(id="w", ended=ended("too slow", "LOADING_TIMEOUT")))
    error = await failure(queen)
    assert (error["code"], error["message"]) == ("LOADING_TIMEOUT", "too slow")


async def test_a_worker_that_has_not_ended_has_no_failure_and_of_one_that_is_gone_nobody_claims_to_know_why(
    worker: StandIn, queen: httpx.AsyncClient
) -> None:
    await queen.post("/v2/tasks", json=PLAIN)
    slots = {"slots_total": 1, "slots_available": 1}
    row = WorkerRow(id="w", url=worker.url, model_ref="m", backend="cpu", device=0, state="idle", pid=7, **slots)
    worker.rows = [row]
    assert await failure(queen) is None
    worker.rows = []
    error = await failure(queen)
    assert (error["code"], error["details"]) == ("SHUTTING_DOWN", {"worker_id": "w"})
    assert error["message"] == "the worker is gone, and its hive does not know how it ended"
    worker.mirror.on_hive_event(WorkerList(workers=[row]))
    assert await failure(queen) is None, "the hive's events are believed, while they come"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for entry in caplog.records if (line := entry.getMessage()).startswith("request ")]


async def test_each_request_leaves_one_line_in_the_log(
    queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    await queen.get("/v2/models/list", headers=wrong)
    await queen.post("/v2/tasks", json=TASK, headers={"Authorization": ""})
    await queen.post("/v2/tasks", json=TASK | {"temperature": 99})
    await queen.post("/v2/tasks", content=b"{")
    await queen.get("/nowhere?token=secret")
    await queen.put("/health")
    await queen.get("/health")
    await queen.delete(f"/v2/tasks/{UUID}")
    found = [
        (line.partition("route=")[2].partition(" status=")[0], line.rpartition("end=")[2]) for line in logged(caplog)
    ]
    assert found == [
        ('"GET /v2/models/list"', "INVALID_API_KEY"),
        ('"POST /v2/tasks"', "MISSING_API_KEY"),
        ('"POST /v2/tasks"', "INVALID_REQUEST"),
        ('"POST /v2/tasks"', "INVALID_REQUEST"),
        ('"GET /nowhere"', "ROUTE_NOT_FOUND"),
        ('"PUT /health"', "METHOD_NOT_ALLOWED"),
        ('"DELETE /v2/tasks/<request_id>"', "ok"),
    ]
    text = "".join(logged(caplog))
    assert "address=127.0.0.1" in text
    assert not any(word in text for word in (TOKEN, "Once", "secret"))


async def test_a_relayed_answer_leaves_one_line(
    worker: StandIn, queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await queen.post("/v2/tasks", json=TASK)
    with trio.fail_after(30):
        while not logged(caplog):  # noqa: ASYNC110 (it is written a moment later)
            await trio.sleep(0.05)
    (line,) = logged(caplog)
    assert f"id={UUID} address=127.0.0.1 " in line
    assert "node=local worker=w relayed=yes queue_ms=" in line
    assert "first_token_ms=" in line
    assert "upon" not in line
