"""Inference over a real socket, on the real engine."""

from __future__ import annotations

import json
import re
import socket
import uuid
from functools import partial
from itertools import pairwise
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.lowlevel
from msgspec import UNSET

from rbee.adapters.http import sse_client
from rbee.clients.worker import decode
from rbee.wire.progress import Reading
from rbee.wire.worker import Done, InferenceRequest
from tests.kit.leaving import connect
from tests.kit.models import BEE, make
from tests.kit.stopwatch import Stopwatch
from tests.kit.waiting import PATIENCE
from tests.kit.worker_child import events
from tests.kit.worker_serving import KEY, Serving, request, serving

if TYPE_CHECKING:
    from pathlib import Path

PAUSED = 600
"""Tokens that the slow model takes seconds for."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes seconds for a long prompt."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return make(path, width=1024, layers=8, feed_forward=3072, context=8192)


def tokens(stream: str) -> list[str]:
    found = events(stream)
    assert [event["index"] for event in found[:-1]] == list(range(len(found) - 1))
    assert found[-1]["done"] is True
    return [event["token"] for event in found[:-1]]


def raw_request(**fields: Any) -> bytes:
    body = msgspec.json.encode(request("A", **fields))
    headers = f"Host: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}"
    return f"POST /v1/inference HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


async def test_a_stream_is_tokens_then_done_then_the_last_event(tiny: Path) -> None:
    async with serving(tiny) as worker:
        request_id, correlation_id = str(uuid.uuid4()), str(uuid.uuid4())
        response = await worker.client.post(
            "/v1/inference", json=request("w", request_id=request_id), headers={"X-Correlation-Id": correlation_id}
        )
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-request-id"] == request_id
        assert response.headers["x-correlation-id"] == correlation_id
        *pieces, done = events(response.text)
        assert pieces == [{"token": letter, "index": index} for index, letter in enumerate("xyz")]
        assert done.keys() == {"done", "total_tokens", "duration_ms", "stop_reason"}
        assert (done["done"], done["total_tokens"], done["stop_reason"]) == (True, 3, "eos")
        assert worker.status.now.state == "idle"


async def test_one_object_without_streaming(tiny: Path) -> None:
    async with serving(tiny) as worker:
        response = await worker.infer("W", stream=False, max_tokens=6)
        found = response.json()
        assert response.headers["x-request-id"] == found["request_id"]
        assert found["text"] == "XYZABC"
        assert (found["total_tokens"], found["prompt_tokens"], found["stop_reason"]) == (6, 2, "length")
        assert found["duration_ms"] > 0


async def test_characters_come_whole_and_other_bytes_are_replaced(tiny: Path) -> None:
    async with serving(tiny) as worker:
        assert tokens((await worker.infer("7", max_tokens=8)).text) == ["8", "9", BEE, "0", "1"]
        assert tokens((await worker.infer("!", max_tokens=8)).text) == ["�", "�y", "z"]
        # Two bytes of the four: the limit is one of tokens, and what is left of the character is shown as such.
        assert await worker.text("9", max_tokens=2) == "�"
        assert (await worker.text(f'Grüße 你好 {BEE} \\ " \t x')) == "yz"


async def test_stop_strings_never_leak(tiny: Path) -> None:
    async with serving(tiny) as worker:
        stream = (await worker.infer("A", stop=["FGH", "HI"])).text
        assert tokens(stream) == list("BCDE")
        assert events(stream)[-1]["stop_reason"] == "stop"
        # The limit comes in the middle of what might have become a stop string: it was text after all.
        assert await worker.text("A", stop=["EFG"], max_tokens=5) == "BCDEF"
        assert await worker.text("8", stop=[BEE]) == "9"


async def test_the_same_seed_gives_the_same_text(tmp_path: Path) -> None:
    model = make(tmp_path / "random.gguf", random=True)
    async with serving(model) as worker:

        async def generate(**fields: Any) -> str:
            return await worker.text("Once", temperature=1.5, top_k=0, top_p=1, min_p=0, max_tokens=24, **fields)

        assert await generate(seed=42) == await generate(seed=42)
        assert await generate(seed=42) != await generate(seed=43)
        assert await generate() != await generate()


async def test_every_sampler_option_is_taken(tiny: Path) -> None:
    async with serving(tiny) as worker:
        for fields in (
            {"temperature": 2, "top_k": 1, "repeat_penalty": 1e-300},
            {"temperature": 1e-300, "top_p": 1e-300, "min_p": 1, "repeat_penalty": 10},
            {"temperature": 0.7, "top_k": 1_000_000, "top_p": 1, "min_p": 0, "seed": 0},
            {"temperature": 0.7, "seed": 2**32 - 2, "raw": True},
        ):
            assert (await worker.infer("a", max_tokens=4, **fields)).status_code == 200


async def test_narration_comes_beside_the_tokens(tiny: Path) -> None:
    async with serving(tiny) as worker:
        text = (await worker.infer("x", narrate=True)).text
        assert tokens(text) == ["y", "z"]
        told = [block for block in text.split("\n\n") if block.startswith("event: narration\n")]
        assert "Reading 2 prompt tokens" in told[0]
        said = json.loads(told[1].partition("data: ")[2])["human"]
        # No speed: the last line says one, of the text alone, and this time is that of the prompt too.
        assert re.fullmatch(r"Generated 2 tokens in \d+ ms", said), said
        assert "event:" not in (await worker.infer("x")).text


async def test_several_streams_each_get_their_own_text(tiny: Path) -> None:
    async with serving(tiny) as worker:
        found: dict[str, str] = {}

        async def generate(prompt: str) -> None:
            found[prompt] = await worker.text(prompt, max_tokens=300)

        async with trio.open_nursery() as nursery:
            for prompt in ("A", "Q", "0", "a"):
                nursery.start_soon(generate, prompt)
        letters, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 13, f"0123456789{BEE}" * 25
        assert found["A"] == letters[1:301]
        assert found["Q"] == letters[17:317]
        assert digits.startswith("0" + found["0"])
        assert found["a"] == "bcdefghijklmnopqrstuvwxyz"


async def test_with_one_slot_free_one_of_two_is_served(tiny: Path) -> None:
    async with serving(tiny, slots=1) as worker:
        for _ in range(5):
            answers: list[Any] = []

            async def ask(answers: list[Any] = answers) -> None:
                answers.append(await worker.infer("A", max_tokens=200))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(ask)
            assert sorted(answer.status_code for answer in answers) == [200, 503]
            error = next(answer for answer in answers if answer.status_code == 503).json()["error"]
            assert error["code"] == "ALL_SLOTS_BUSY"
            assert (error["slots_total"], error["slots_busy"]) == (1, 1)
            assert error["details"] == {"slots_total": 1, "slots_busy": 1}
            assert worker.status.now.slots_busy == 0


async def test_limits_of_the_context_are_named(tiny: Path) -> None:
    async with serving(tiny, context=64) as worker:
        long = (await worker.infer("a" * 100)).json()["error"]
        assert (long["code"], long["details"]["tokens"], long["details"]["context"]) == ("INVALID_REQUEST", 101, 64)
        assert "101" in long["message"]
        assert "64" in long["message"]
        assert long["hint"] == "shorten the prompt, or raise `context` under [worker], to 2048 at most"
        many = (await worker.infer("a", max_tokens=65)).json()["error"]
        assert (many["code"], many["details"]["field"], many["details"]["rule"]) == (
            "INVALID_REQUEST",
            "max_tokens",
            "<= 64",
        )
        # A generation that fills the context ends there.
        full = (await worker.infer("A" * 60, max_tokens=64, stream=False)).json()
        assert (full["total_tokens"], full["stop_reason"]) == (3, "length")


async def test_a_context_that_cannot_be_larger_is_not_to_be_raised(tiny: Path) -> None:
    async with serving(tiny, context=2048) as worker:
        assert (await worker.infer("a" * 2100)).json()["error"]["hint"] == "shorten the prompt"


async def test_an_id_in_use_is_refused(slow: Path) -> None:
    async with serving(slow, context=8192) as worker:
        request_id = str(uuid.uuid4())
        async with worker.stream("A", max_tokens=4000, request_id=request_id):
            refused = await worker.infer("A", request_id=request_id)
            assert refused.status_code == 400
            assert refused.json()["error"]["details"]["field"] == "request_id"


async def test_cancelling_ends_the_generation_before_it_answers(slow: Path) -> None:
    async with serving(slow, context=8192, slots=1) as worker:
        request_id = str(uuid.uuid4())
        async with worker.stream("A", max_tokens=4000, request_id=request_id) as running:
            await anext(running)
            answer = await worker.client.delete(f"/v1/inference/{request_id}")
            assert answer.status_code == 204
            assert worker.status.now.slots_busy == 0
            *_, last = [event async for event in running]
        assert msgspec.json.decode(last.data)["error"]["code"] == "CANCELLED"
        assert await worker.text("x") == "yz"


@pytest.mark.parametrize("stream", [True, False])
async def test_cancelling_reaches_into_a_long_prompt(slow: Path, stream: bool) -> None:
    async with serving(slow, context=8192, slots=1) as worker:
        request_id = str(uuid.uuid4())
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await worker.infer("a" * 8000, request_id=request_id, stream=stream, max_tokens=1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await worker.wait_state("busy")
            await trio.sleep(0.05)  # into the first decode; without it the test is right but says less
            started = trio.current_time()
            await worker.client.delete(f"/v1/inference/{request_id}")
            assert trio.current_time() - started < 0.5
            assert worker.status.now.slots_busy == 0
        assert "CANCELLED" in answers[0].text
        assert answers[0].status_code == (200 if stream else 499)
        assert await worker.text("A") == "BCDEFGHIJKLMNOPQRSTU"


@pytest.mark.parametrize("request_id", ["00000000-0000-4000-8000-0000000000ff", "nonsense", "%00", "a%2fb", "x" * 500])
async def test_cancelling_what_does_not_run_is_well(tiny: Path, request_id: str) -> None:
    async with serving(tiny) as worker:
        answer = await worker.client.delete(f"/v1/inference/{request_id}")
        assert answer.status_code in (204, 404)
        assert request_id == "a%2fb" or answer.status_code == 204


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["A", "a" * 8000])
async def test_a_client_that_goes_frees_its_slot(slow: Path, stream: bool, prompt: str) -> None:
    async with serving(slow, context=8192, slots=1) as worker:
        with trio.move_on_after(0.3) as patience:
            await worker.client.post("/v1/inference", json=request(prompt, stream=stream, max_tokens=190))
        assert patience.cancelled_caught
        watch = Stopwatch()
        with trio.fail_after(PATIENCE):
            await worker.status.wait_idle()
        assert watch.seconds() < 1
        assert await worker.text("x") == "yz"


async def test_no_moment_to_hang_up_leaks_a_slot(tiny: Path) -> None:
    """The connection closes after ever longer times, from before the answer's head to its end."""
    async with serving(tiny, slots=1) as worker:
        for step in range(40):
            stream = await trio.open_tcp_stream("127.0.0.1", worker.port)
            await stream.send_all(raw_request(max_tokens=300))
            await trio.sleep(step * 0.0005)
            await stream.aclose()
            await trio.lowlevel.checkpoint()
        watch = Stopwatch()
        with trio.fail_after(PATIENCE):
            while True:
                await worker.status.wait_idle()
                with trio.move_on_after(0.2) as quiet:
                    await worker.status.changed.wait()
                if quiet.cancelled_caught:
                    break
        assert watch.seconds() < 2
        assert await worker.text("x") == "yz"


async def test_a_reader_that_stalls_holds_up_nobody(tiny: Path) -> None:
    async with serving(tiny) as worker, await trio.open_tcp_stream("127.0.0.1", worker.port) as stalled:
        await stalled.send_all(raw_request(max_tokens=2000))
        await worker.wait_state("busy")
        assert await worker.text("a") == "bcdefghijklmnopqrstu"
        # Its generation ends all the same, and so does its slot's time.
        watch = Stopwatch()
        with trio.fail_after(2 * PATIENCE):
            await worker.status.wait_idle()
        assert watch.seconds() < 20


async def test_a_reader_that_pauses_gives_its_slot_away_and_loses_nothing(slow: Path) -> None:
    async with serving(slow, context=8192, slots=1) as worker:
        client = trio.SocketStream(trio.socket.from_stdlib_socket(connect(worker.port)))
        await client.send_all(raw_request(max_tokens=PAUSED))
        await worker.wait_state("busy")
        with trio.fail_after(5):
            await worker.wait_state("idle")
        assert worker.status.now.running == 1
        assert await worker.text("a", max_tokens=5) == "bcdef"
        assert worker.status.now.running == 1, "it has come to its end: this proves nothing"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        answer = b""
        while b"[DONE]" not in answer:
            answer += await client.receive_some()
        await client.aclose()
    text = b"".join(re.findall(rb'"token":"(.)"', answer)).decode()
    assert text == (ascii_uppercase * PAUSED)[1 : PAUSED + 1]


async def test_a_long_prompt_does_not_stall_a_running_stream(slow: Path) -> None:
    async with serving(slow, context=8192, slots=2) as worker:
        gaps: list[float] = []
        async with trio.open_nursery() as nursery:
            async with worker.stream("A", max_tokens=200) as running:
                await anext(running)
                nursery.start_soon(partial(worker.infer, "a" * 8000, max_tokens=1))
                for _ in range(20):
                    watch = Stopwatch()
                    await anext(running)
                    gaps.append(watch.seconds())
            nursery.cancel_scope.cancel()
        # All 8000 tokens at once would take many seconds.
        assert max(gaps) < 2, gaps


async def test_an_inference_ends_at_its_time_limit(slow: Path) -> None:
    async with serving(slow, context=8192, slots=1, inference=1.0) as worker:
        streamed = (await worker.infer("A", max_tokens=4000)).text
        error = events(streamed)[-1]["error"]
        assert error["code"] == "INFERENCE_TIMEOUT"
        assert error["details"]["elapsed"] >= 1
        assert error["details"]["tokens"] > 0
        assert worker.status.now.state == "idle"
        whole = await worker.infer("a" * 8000, stream=False)
        assert (whole.status_code, whole.json()["error"]["details"]["tokens"]) == (504, 0)


async def test_draining_lets_requests_end_and_takes_no_new_ones(slow: Path) -> None:
    async with serving(slow, context=8192, slots=2) as worker:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await worker.infer("A", max_tokens=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await worker.wait_state("busy")
            nursery.start_soon(worker.service.drain, 30, trio.Event())
            await worker.wait_state("draining")
            refused = await worker.infer("A")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SHUTTING_DOWN")
        assert len(tokens(answers[0].text)) == 20


@pytest.mark.parametrize("forced", [False, True])
async def test_draining_ends_what_takes_too_long(slow: Path, forced: bool) -> None:
    async with serving(slow, context=8192, slots=2) as worker:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await worker.infer("A", max_tokens=4000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await worker.wait_state("busy")
            force = trio.Event()
            if forced:
                force.set()
            with trio.fail_after(5):
                await worker.service.drain(30 if forced else 0.2, force)
            assert worker.status.now.slots_busy == 0
        assert events(answers[0].text)[-1]["error"]["code"] == "SHUTTING_DOWN"


async def test_a_service_that_is_cancelled_ends_its_streams(slow: Path) -> None:
    """The engine stops under a running request; the worker can load and serve again."""
    for _ in range(2):
        worker: Serving
        async with serving(slow, context=8192, slots=1) as worker, trio.open_nursery() as nursery:
            nursery.start_soon(partial(worker.infer, "a" * 8000))
            await worker.wait_state("busy")
            nursery.cancel_scope.cancel()


async def test_who_wants_to_be_told_hears_how_far_the_prompt_is_and_what_it_took(tiny: Path) -> None:
    async with serving(tiny, context=2048) as worker:
        asked = InferenceRequest(prompt="a" * 1000, narrate=True, max_tokens=7, temperature=0)
        async with sse_client.events(worker.client, "POST", "/v1/inference", body=asked) as stream:
            found = [decode(event) async for event in stream]
        readings = [one for one in found if isinstance(one, Reading)]
        assert {(one.tokens_total, one.most_tokens) for one in readings} == {(1001, 7)}
        assert readings[0].tokens_read < 1001, "the first report comes before the first step has ended"
        assert [one.tokens_read for one in readings] == sorted(one.tokens_read for one in readings)
        done = found[-1]
        assert isinstance(done, Done)
        assert done.context is UNSET
        assert done.timings is not UNSET
        assert done.timings.prompt_tokens == 1001
        assert 0 < done.timings.prompt_ms <= done.timings.first_token_ms <= done.duration_ms
        assert 0 < done.timings.text_ms < done.duration_ms


async def test_reading_a_long_prompt_is_reported_every_second(slow: Path) -> None:
    """Also where a step takes longer: a user must see that something happens."""
    async with serving(slow, context=8192, slots=1) as worker:
        asked = InferenceRequest(prompt="a" * 1500, narrate=True, max_tokens=1, temperature=0)
        times, readings = [trio.current_time()], list[int]()
        async with sse_client.events(worker.client, "POST", "/v1/inference", body=asked) as stream:
            async for event in stream:
                times.append(trio.current_time())
                if isinstance(reading := decode(event), Reading):
                    readings.append(reading.tokens_read)
        assert len(readings) >= 2
        assert readings == sorted(readings)
        assert readings[-1] > readings[0], "it is real progress"
        # One each half second; what is beyond is a machine that does something else.
        assert max(after - before for before, after in pairwise(times)) < 10


async def test_without_a_limit_the_end_of_the_context_ends_the_text(tiny: Path) -> None:
    async with serving(tiny, context=64) as worker:
        asked = {"prompt": "A" * 60, "temperature": 0}
        done = events((await worker.client.post("/v1/inference", json=asked)).text)[-1]
        assert (done["total_tokens"], done["stop_reason"]) == (3, "length")
        assert done["context"] == {"tokens": 64, "trained_tokens": 2048}
        whole = (await worker.client.post("/v1/inference", json=asked | {"stream": False, "max_tokens": 4})).json()
        assert (whole["total_tokens"], whole["context"]["tokens"]) == (3, 64)
        whole = (await worker.client.post("/v1/inference", json=asked | {"stream": False, "max_tokens": 3})).json()
        assert (whole["total_tokens"], whole["stop_reason"], "context" in whole) == (3, "length", False)
        assert await worker.text("w", max_tokens=20) == "xyz"
