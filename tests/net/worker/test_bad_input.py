"""Bad input of every kind: an error object that names field and rule, never a 500, never an echo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from tests.kit.models import make
from tests.kit.worker_serving import KEY, serving

if TYPE_CHECKING:
    from pathlib import Path

ECHO = "sesame"
"""Stands in every value that must not come back."""

VALUES = [None, True, -1, 0, 1.5, 1e308, 2**31, 2**70, "", ECHO, "\x00", [], [ECHO], {}, {ECHO: ECHO}]
RIGHT: dict[str, list[Any]] = {
    "prompt": [ECHO],
    "max_tokens": [],
    "temperature": [0, 1.5],
    "stream": [True],
    "narrate": [True],
    "raw": [True],
    "top_p": [None],
    "top_k": [None, 0],
    "min_p": [None, 0],
    "repeat_penalty": [None, 1.5],
    "seed": [None, 0, 2**31],
    "stop": [None, [], [ECHO]],
    "request_id": [None],
}
BODIES = {
    "empty": b"",
    "no JSON": b"sesame",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a string": b'"sesame"',
    "invalid UTF-8": b'{"prompt":"sesame\xff"}',
    "overlong UTF-8": b'{"prompt":"\xc0\x80"}',
    "UTF-16": '{"prompt":"sesame"}'.encode("utf-16"),
    "a lone surrogate": b'{"prompt":"sesame\\ud800"}',
    "an escaped NUL": b'{"prompt":"sesame\\u0000"}',
    "NaN": b'{"prompt":"a","temperature":NaN}',
    "Infinity": b'{"prompt":"a","temperature":Infinity}',
    "a number beyond floats": b'{"prompt":"a","temperature":1e999}',
    "an unknown field": b'{"prompt":"a","other":"sesame"}',
    "an unknown field that is no name": b'{"prompt":"a","open sesame\\u001b[2J":1}',
    "an unfinished object": b'{"prompt":"sesame"',
    "more after the object": b'{"prompt":"a"} sesame',
    "100k lists": b'{"prompt":' + b"[" * 100_000,
    "100k nested lists": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100k objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long prompt": b'{"prompt":"' + b"s" * 1_000_001 + b'"}',
    "many stops": msgspec.json.encode({"prompt": "a", "stop": [ECHO] * 17}),
    "a long stop": msgspec.json.encode({"prompt": "a", "stop": [ECHO * 100]}),
    "an id in capitals": b'{"prompt":"a","request_id":"AAAAAAAA-0000-4000-8000-000000000001"}',
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "tiny.gguf")


def check(status: int, body: bytes) -> dict[str, Any]:
    """Check an error's shape; returns its inner object."""
    assert 400 <= status < 500, (status, body[:300])
    assert ECHO.encode() not in body, body[:300]
    assert len(body) < 2000
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    assert error["code"] in ("INVALID_REQUEST", "PAYLOAD_TOO_LARGE")
    assert error["message"]
    assert error["correlation_id"]
    assert error["details"]["field"]
    assert error["details"]["rule"]
    return error


async def test_every_field_of_every_wrong_value(tiny: Path) -> None:
    async with serving(tiny) as worker:
        for field, right in RIGHT.items():
            for value in VALUES:
                kinds = [(type(good), good) for good in right]
                if (type(value), value) in kinds:
                    continue
                body = {"prompt": "a", "stream": False, field: value}
                answer = await worker.client.post("/v1/inference", json=body)
                error = check(answer.status_code, answer.content)
                # The rule may concern one element: stop[0] or stop[…].
                assert error["details"]["field"].partition("[")[0] == field, (body, error)
        assert worker.status.now.state == "idle"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_every_kind_of_bad_body(tiny: Path, body: bytes) -> None:
    async with serving(tiny, loaded=False) as worker:
        answer = await worker.client.post("/v1/inference", content=body)
        check(answer.status_code, answer.content)


async def test_a_missing_prompt_is_named(tiny: Path) -> None:
    async with serving(tiny, loaded=False) as worker:
        error = check(400, (await worker.client.post("/v1/inference", json={})).content)
        assert (error["details"]["field"], error["details"]["rule"]) == ("prompt", "required")


async def test_one_request_may_have_the_room_of_all_and_no_token_more(tiny: Path) -> None:
    async with serving(tiny, slots=4, context=64, longest=200) as worker:
        for tokens in (65, 199):
            answer = await worker.infer("A" * (tokens - 1), max_tokens=200, stream=False)
            done = answer.json()
            assert (done["prompt_tokens"], done["total_tokens"]) == (tokens, 200 - tokens)
        error = check(400, (await worker.infer("A" * 199)).content)
        assert (error["details"]["tokens"], error["details"]["context"]) == (200, 200)
        assert "200 tokens > 200 maximum" in error["message"]
        error = check(400, (await worker.infer("A", max_tokens=201)).content)
        assert error["details"]["context"] == 200


async def test_a_million_characters_are_counted_and_refused(tiny: Path) -> None:
    async with serving(tiny) as worker:
        error = check(400, (await worker.infer("a" * 1_000_000)).content)
        assert error["details"]["tokens"] > error["details"]["context"]
        assert "or more tokens" in error["message"]


@pytest.mark.parametrize("pause", [0, 0.002])  # seconds: all is there before the answer, or some of it is still to come
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_17_megabytes_is_refused(tiny: Path, chunked: bool, pause: float) -> None:
    async with serving(tiny, loaded=False) as worker:
        size = 17 * 1024 * 1024
        stream = await trio.open_tcp_stream("127.0.0.1", worker.port)
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        head = f"POST /v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{length}\r\n\r\n"
        answer = b""

        async def send() -> None:
            chunk = b"a" * 65536
            try:
                await stream.send_all(head.encode())
                for _ in range(size // len(chunk)):
                    await trio.sleep(pause)
                    await stream.send_all(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk)
            except trio.BrokenResourceError:
                pass  # the server has heard enough

        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(20):
                while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                    received = await stream.receive_some(65536)
                    assert received, answer
                    answer += received
            nursery.cancel_scope.cancel()
        head_of_answer, _, body = answer.partition(b"\r\n\r\n")
        assert b" 413 " in head_of_answer.splitlines()[0]
        assert check(413, body)["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_length_beside_chunks_is_refused(tiny: Path) -> None:
    async with serving(tiny, loaded=False) as worker:
        stream = await trio.open_tcp_stream("127.0.0.1", worker.port)
        head = f"POST /v1/inference HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        await stream.send_all(
            f"{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode()
        )
        answer = await stream.receive_some(65536)
        assert b" 400 " in answer.splitlines()[0]
        await stream.aclose()


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/inference"), ("GET", "/v1/inference/x/y"), ("GET", "/v2")])
async def test_what_does_not_exist_is_an_error_object_too(tiny: Path, method: str, path: str) -> None:
    async with serving(tiny, loaded=False) as worker:
        answer = await worker.client.request(method, path)
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["code"] in ("ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED")
