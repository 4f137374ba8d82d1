"""The worker while it loads, when it cannot load, and what it tells about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.wire.common import KEEP_HEADER
from tests.kit.models import make
from tests.kit.worker_child import events
from tests.kit.worker_serving import WORKER_ID, Serving, request, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=4)


async def test_health_and_readiness_are_public(tiny: Path) -> None:
    async with serving(tiny, loaded=False) as worker, http_client.connect(worker.url, None) as anyone:
        health = (await anyone.get("/v1/health")).json()
        assert health.keys() == {"status", "version", "api_version", "worker_id"}
        assert (health["status"], health["api_version"], health["worker_id"]) == ("alive", "v1", WORKER_ID)
        assert (await anyone.get("/v1/ready")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/loading/progress"),
        ("GET", "/v1/events"),
        ("POST", "/v1/inference"),
        ("DELETE", "/v1/inference/x"),
        ("POST", "/v1/admin/shutdown"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
    ],
)
async def test_all_else_needs_the_key(tiny: Path, method: str, path: str) -> None:
    async with serving(tiny, loaded=False) as worker, http_client.connect(worker.url, None) as anyone:
        missing = await anyone.request(method, path)
        assert (missing.status_code, missing.json()["error"]["code"]) == (401, "MISSING_API_KEY")
        assert missing.headers["www-authenticate"] == "Bearer"
        wrong = await anyone.request(method, path, headers={"Authorization": "Bearer wrong"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "INVALID_API_KEY")
        assert not worker.stopping.asked.is_set()


async def test_while_loading_it_says_so_and_how_far_it_is(tiny: Path) -> None:
    async with serving(tiny, loaded=False) as worker:
        ready = (await worker.client.get("/v1/ready")).json()
        assert ready == {
            "ready": False,
            "state": "loading",
            "progress_url": f"{worker.url}/v1/loading/progress",
        }
        refused = await worker.infer("x")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "WORKER_NOT_READY")
        found: list[Any] = []

        async def follow() -> None:
            found.extend(events((await worker.client.get(ready["progress_url"])).text))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            worker.load.set()
        *steps, last = found
        assert last == {"stage": "ready"}
        assert steps
        layers = [step["layers_loaded"] for step in steps]
        assert layers == sorted(layers)
        assert all(step["stage"] == "loading_to_vram" and step["layers_total"] == 4 for step in steps)
        assert steps[-1]["layers_loaded"] == 4
        assert steps[-1]["vram_mb"] > 1
        assert (await worker.client.get("/v1/ready")).json() == {"ready": True, "state": "idle", "model_loaded": True}


async def test_the_loading_stream_of_a_loaded_model_ends_at_once(tiny: Path) -> None:
    async with serving(tiny) as worker:
        assert events((await worker.client.get("/v1/loading/progress")).text)[-1] == {"stage": "ready"}


def _not_a_model(path: Path) -> Path:
    path.write_bytes(b"MZ" + bytes(1000))
    return path


def _header_cut(path: Path) -> Path:
    whole = make(path.with_name("whole.gguf")).read_bytes()
    path.write_bytes(whole[:300])
    return path


def _weights_cut(path: Path) -> Path:
    whole = make(path.with_name("whole.gguf")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def _unknown_architecture(path: Path) -> Path:
    return make(path, architecture="bumblebee")


def _missing(path: Path) -> Path:
    return path


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_not_a_model, "not_gguf"),
        (_header_cut, "corrupt"),
        (_weights_cut, "corrupt"),
        (_unknown_architecture, "unsupported"),
        (_missing, "missing"),
    ],
)
async def test_a_model_that_does_not_load_is_explained(tmp_path: Path, spoil: Any, reason: str) -> None:
    async with serving(spoil(tmp_path / "model.gguf")) as worker:
        ready = (await worker.client.get("/v1/ready")).json()
        assert (ready["ready"], ready["state"]) == (False, "failed")
        assert ready["error"]["code"] == "MODEL_LOAD_FAILED"
        assert ready["error"]["details"]["reason"] == reason
        assert str(tmp_path) not in str(ready)
        refused = await worker.infer("x")
        assert (refused.status_code, refused.json()["error"]["code"]) == (500, "MODEL_LOAD_FAILED")
        (told,) = events((await worker.client.get("/v1/loading/progress")).text)[-1:]
        assert told["error"]["code"] == "MODEL_LOAD_FAILED"


async def test_a_context_that_does_not_fit_is_explained(tiny: Path) -> None:
    async with serving(tiny, slots=64, context=1 << 24) as worker:
        ready = (await worker.client.get("/v1/ready")).json()
        assert ready["error"]["details"]["reason"] == "out_of_memory"
        assert ready["error"]["hint"]


async def test_memory_that_is_gone_since_the_hive_looked_is_said_before_anything_is_loaded(tiny: Path) -> None:
    async with serving(tiny, slots=1, context=64, memory=10**15) as worker:
        ready = (await worker.client.get("/v1/ready")).json()
        assert (ready["state"], ready["error"]["details"]["reason"]) == ("failed", "out_of_memory")
        details = ready["error"]["details"]
        assert (details["required"], details["resource"]) == (10**9, "ram")
        assert 0 < details["available"] < 10**9
        assert "smaller quantisation" in ready["error"]["hint"]
        told = events((await worker.client.get("/v1/loading/progress")).text)
        assert not [event for event in told if "layers_loaded" in event]


async def test_events_tell_what_is_and_then_each_change(tiny: Path) -> None:
    async with (
        serving(tiny, loaded=False, slots=2) as worker,
        sse_client.events(worker.client, "GET", "/v1/events") as stream,
    ):

        async def until(state: str) -> dict[str, Any]:
            with trio.fail_after(20):
                async for event in stream:
                    found: dict[str, Any] = msgspec.json.decode(event.data)
                    if found["state"] == state:
                        return found
            raise AssertionError(state)

        assert (await until("loading"))["slots_available"] == 0
        worker.load.set()
        idle = await until("idle")
        assert (idle["slots_total"], idle["slots_available"]) == (2, 2)
        async with worker.stream("A", max_tokens=2000) as running:
            await anext(running)
            assert (await until("busy"))["slots_available"] == 1
        assert (await until("idle"))["slots_available"] == 2
        worker.status.set_draining()
        assert (await until("draining"))["slots_available"] == 0
        worker.status.close()
        assert [event async for event in stream] == []


async def test_shutdown_is_accepted_once(tiny: Path) -> None:
    worker: Serving
    async with serving(tiny) as worker:
        assert (await worker.client.post("/v1/admin/shutdown")).status_code == 202
        assert worker.stopping.asked.is_set()


async def test_a_shutdown_for_idle_workers_alone_is_refused_while_there_is_a_request(tiny: Path) -> None:
    async with serving(tiny) as worker:
        async with worker.stream("A", max_tokens=2000) as running:
            await anext(running)
            refused = await worker.client.post("/v1/admin/shutdown?only_if_idle")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "MODEL_IN_USE")
            assert not worker.stopping.asked.is_set()
        await worker.status.wait_idle()
        assert (await worker.client.post("/v1/admin/shutdown?only_if_idle")).status_code == 202
        assert worker.stopping.asked.is_set()
        assert (await worker.client.post("/v1/inference", json={"prompt": "A"})).status_code == 503, "at once"


async def test_metrics_count_requests_and_tokens(tiny: Path) -> None:
    async with serving(tiny, slots=2) as worker:
        await worker.text("x")
        await worker.infer("A", max_tokens=5)
        await worker.infer("A", max_tokens=100_000)
        response = await worker.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = response.text.splitlines()
        for line in (
            'rbee_worker_requests_total{outcome="eos"} 1.0',
            'rbee_worker_requests_total{outcome="length"} 1.0',
            'rbee_worker_requests_total{outcome="invalid_request"} 1.0',
            "rbee_worker_prompt_tokens_total 4.0",
            "rbee_worker_generated_tokens_total 7.0",
            "rbee_worker_slots 2.0",
            "rbee_worker_slots_busy 0.0",
            'rbee_worker_state{state="idle"} 1.0',
        ):
            assert line in lines, response.text


async def test_metrics_count_requests_that_were_given_up(tiny: Path) -> None:
    """By whom does not matter: the client leaves, somebody cancels, or it takes too long."""

    async def outcomes(worker: Serving) -> set[str]:
        text = (await worker.client.get("/metrics")).text
        return {line for line in text.splitlines() if line.startswith("rbee_worker_requests_total{")}

    async with serving(tiny, context=8192) as worker:
        async with worker.stream("A", max_tokens=8000) as running:
            await anext(running)
        await worker.wait_state("idle")
        async with worker.stream("A", max_tokens=8000, request_id=WORKER_ID) as running:
            await anext(running)
            await worker.client.delete(f"/v1/inference/{WORKER_ID}")
            assert await outcomes(worker) == {'rbee_worker_requests_total{outcome="cancelled"} 2.0'}
    async with serving(tiny, context=8192, inference=0.01) as worker:
        await worker.infer("A", max_tokens=8000)
        assert await outcomes(worker) == {'rbee_worker_requests_total{outcome="inference_timeout"} 1.0'}


async def test_how_long_it_is_to_stay_is_published(tiny: Path) -> None:
    """The hive decides by that; a request that says nothing of it changes nothing."""
    async with serving(tiny) as worker:
        assert worker.status.now.on_wire().keep_s is None
        for header, expected in (({KEEP_HEADER: "7200"}, 7200), ({}, 7200), ({KEEP_HEADER: "0"}, 0)):
            done = await worker.client.post("/v1/inference", json=request("x"), headers=header)
            assert (done.status_code, worker.status.now.on_wire().keep_s) == (200, expected)
        refused = await worker.client.post("/v1/inference", json=request("x"), headers={KEEP_HEADER: "later"})
        assert refused.json()["error"]["code"] == "INVALID_REQUEST"
        assert worker.status.now.on_wire().keep_s == 0
