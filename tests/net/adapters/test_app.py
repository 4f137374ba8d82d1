"""What every daemon's HTTP interface does alike, over real sockets."""

from __future__ import annotations

import json
import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from rbee.adapters.http.app import answer, body, empty, new_app, with_keys
from rbee.adapters.logs import json_log
from rbee.errors import NodeNotFoundError, OutOfMemoryError
from rbee.wire.common import MAX_BODY_BYTES
from rbee.wire.queen import TaskRequest
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

KEY = "rbee_key"
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
AUTH = {"Authorization": f"Bearer {KEY}"}
SECRET = "hunter2"


def build() -> QuartTrio:
    app = new_app("test", with_keys(lambda _: [KEY, "rbee_other"], {"/open"}))

    @app.get("/open")
    async def open_to_all() -> Response:
        return answer({"correlation_id": json_log.correlation.get()})

    @app.get("/closed")
    async def closed() -> Response:
        return answer({"ok": True})

    @app.post("/task")
    async def task() -> Response:
        return answer({"length": len((await body(TaskRequest)).prompt)})

    @app.get("/bug")
    async def bug() -> Response:
        raise ZeroDivisionError(SECRET)

    @app.get("/bugs")
    async def bugs() -> Response:
        async with trio.open_nursery():
            raise ZeroDivisionError(SECRET)

    @app.get("/expected")
    async def expected() -> Response:
        raise OutOfMemoryError("no room", required=2, available=1, resource="ram")

    @app.get("/missing/<name>")
    async def missing(name: str) -> Response:
        raise NodeNotFoundError("not there")

    @app.delete("/nothing")
    async def nothing() -> Response:
        return empty(204)

    return app


@pytest.fixture
async def url(serve_app: Callable[[QuartTrio], Awaitable[str]]) -> str:
    return await serve_app(build())


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30, **LOCAL, headers=AUTH) as client:
        yield client


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    assert error["correlation_id"] == response.headers["X-Correlation-Id"]
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    return error


async def raw(url: str, data: bytes, *, seconds: float = 10) -> bytes:
    """Send bytes as they are and return all that comes back until the server closes or is silent."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    received = b""
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        with trio.move_on_after(seconds):
            with suppress(trio.BrokenResourceError):  # it closed before it had everything
                await stream.send_all(data)
            with suppress(trio.BrokenResourceError):
                while chunk := await stream.receive_some():
                    received += chunk
    return received


# Keys.


async def test_a_public_path_needs_no_key(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        assert (await client.get("/open")).status_code == 200
        error_of(await client.get("/closed"), 401, "MISSING_API_KEY")


@pytest.mark.parametrize(
    "given", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"Bearer   {KEY}", "Bearer rbee_other"]
)
async def test_a_right_key_opens(url: str, given: str) -> None:
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        response = await client.get("/closed", headers={"Authorization": given})
    assert response.json() == {"ok": True}


@pytest.mark.parametrize("given", ["", "Bearer", KEY, f"Basic {KEY}", f"Token {KEY}", f"Bearer\t{KEY}"])
async def test_a_missing_key_is_said_to_be_missing(url: str, given: str) -> None:
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        response = await client.get("/closed", headers={"Authorization": given})
    error_of(response, 401, "MISSING_API_KEY")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "given", [b"hunter2", KEY.encode() + b"x", KEY[:-1].encode(), KEY.upper().encode(), b"\xff\xfe", b"x" * 10_000]
)
async def test_a_wrong_key_is_refused_and_not_repeated(url: str, given: bytes) -> None:
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        response = await client.get("/closed", headers={b"Authorization": b"Bearer " + given})
    error_of(response, 401, "INVALID_API_KEY")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert KEY not in response.text


async def test_who_has_no_key_does_not_learn_which_paths_exist(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        for path in ("/nowhere", "/task", "//open", "/open/", "/missing/x"):
            error_of(await client.get(path), 401, "MISSING_API_KEY")


# Correlation.


async def test_a_callers_correlation_id_is_kept(client: httpx.AsyncClient) -> None:
    response = await client.get("/open", headers={"X-Correlation-Id": UUID.upper()})
    assert response.headers["X-Correlation-Id"] == UUID
    assert response.json()["correlation_id"] == UUID


@pytest.mark.parametrize("given", [None, "", "x", UUID + "0", "../../etc/passwd", "a" * 8000])
async def test_without_a_good_one_each_request_gets_a_new_one(client: httpx.AsyncClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Correlation-Id": given}
    found = [(await client.get("/open", headers=headers)).headers["X-Correlation-Id"] for _ in range(2)]
    assert found[0] != found[1]
    assert all(str(uuid.UUID(one)) == one != given for one in found)


async def test_an_error_carries_the_correlation_id(client: httpx.AsyncClient) -> None:
    response = await client.get("/nowhere", headers={"X-Correlation-Id": UUID})
    assert error_of(response, 404, "ROUTE_NOT_FOUND")["correlation_id"] == UUID


# Errors.


async def test_an_error_of_the_catalogue_is_its_body_and_status(client: httpx.AsyncClient) -> None:
    error = error_of(await client.get("/expected"), 503, "VRAM_EXHAUSTED")
    assert error["details"] == {"required": 2, "available": 1, "resource": "ram"}
    error_of(await client.get("/missing/x"), 404, "NODE_NOT_FOUND")


@pytest.mark.parametrize("path", ["/bug", "/bugs"])
async def test_a_bug_is_told_to_the_log_alone(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.ERROR):
        error = error_of(await client.get(path), 500, "INTERNAL_ERROR")
    assert error["details"] == {}
    (record,) = caplog.records
    assert record.getMessage() == f"GET {path} failed"
    assert record.exc_text is not None
    assert f"ZeroDivisionError: {SECRET}" in record.exc_text
    assert (await client.get("/closed")).status_code == 200, "the next request is served"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/open/x", "/missing/", "/missing/a/b", "/%2e%2e/open", "/OPEN"])
async def test_an_unknown_path_is_an_error_object(client: httpx.AsyncClient, path: str) -> None:
    error_of(await client.get(path), 404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("path", ["/open/", "//missing//x", "/missing//x", "/%0a", "/\u00e9", "http://x/nowhere", "*"])
async def test_an_odd_path_is_neither_redirected_nor_a_bug(url: str, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    got = await raw(url, head.encode("latin-1"))
    assert got[:13] in (b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/open"), ("GET", "/task"), ("PUT", "/nothing"), ("BREW", "/open")]
)
async def test_a_wrong_method_is_an_error_object(client: httpx.AsyncClient, method: str, path: str) -> None:
    error = error_of(await client.request(method, path), 405, "METHOD_NOT_ALLOWED")
    assert error["details"]["rule"]


async def test_an_answer_without_content_has_no_type(client: httpx.AsyncClient) -> None:
    response = await client.delete("/nothing")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers
    assert "X-Correlation-Id" in response.headers


async def test_the_program_behind_is_not_named(client: httpx.AsyncClient) -> None:
    assert "server" not in (await client.get("/open")).headers


# Bodies.


async def test_a_body_is_decoded(client: httpx.AsyncClient) -> None:
    response = await client.post("/task", content=json.dumps({"prompt": "🐝" * 9}).encode())
    assert response.json() == {"length": 9}


async def test_a_chunked_body_is_decoded(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"prompt":'
        yield b'"abc"}'

    assert (await client.post("/task", content=chunks())).json() == {"length": 3}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hunter2",
        b'{"prompt":"hunter2\xff"}',
        b'{"prompt":NaN}',
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"prompt":"a","hunter2 ":1}',
        b'{"prompt":["hunter2"]}',
        b"\x00",
        b"\x1f\x8b\x08",
    ],
)
async def test_a_bad_body_is_an_error_object_that_repeats_nothing(client: httpx.AsyncClient, content: bytes) -> None:
    error = error_of(await client.post("/task", content=content), 400, "INVALID_REQUEST")
    assert error["details"]["field"]
    assert error["details"]["rule"]


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "x"]
)
async def test_the_type_of_a_body_does_not_matter(client: httpx.AsyncClient, kind: str) -> None:
    content = b'{"prompt":"abc"}'
    assert (await client.post("/task", content=content, headers={"Content-Type": kind})).json() == {"length": 3}


async def test_a_body_of_17_mb_is_refused(url: str) -> None:
    size = 17 * 1024 * 1024
    head = f"POST /task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {size}\r\n\r\n"
    got = await raw(url, head.encode() + b"a" * size)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"details":{"field":"$","rule":"<= 16777216 bytes"}' in got


async def test_a_chunked_body_above_16_mb_is_refused(url: str) -> None:
    head = f"POST /task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    # No byte more than what is refused: bytes that the server never reads would reset the connection under its answer.
    got = await raw(url, head.encode() + chunk * 16 + b"1\r\na\r\n", seconds=5)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"PAYLOAD_TOO_LARGE"' in got


async def test_the_largest_body_is_accepted(client: httpx.AsyncClient) -> None:
    content = b'{"prompt":"abc"}'.ljust(MAX_BODY_BYTES)
    assert (await client.post("/task", content=content)).json() == {"length": 3}


async def test_two_lengths_of_one_body_are_refused(url: str) -> None:
    head = f"POST /task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    for fields in (
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ):
        smuggled = "0\r\n\r\nGET /closed HTTP/1.1\r\nHost: x\r\n\r\n"
        got = await raw(url, (head + fields + "\r\n" + smuggled).encode())
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"not both" in got
        assert b'"ok":true' not in got
        assert got.count(b"HTTP/1.1 ") == 1, "what follows is not a request of its own"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /open HTTP/9.9\r\n\r\n",
        b"GET /open HTTP/1.1\r\n\r\n",
        b"GET /open HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /open HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999999\r\n\r\n",
        b"GET /open HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage" * 20,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_does_not_harm(url: str, client: httpx.AsyncClient, data: bytes) -> None:
    got = await raw(url, data, seconds=0.5)
    assert b" 500 " not in got
    assert b"Traceback" not in got
    assert (await client.get("/open")).status_code == 200


async def test_requests_sent_at_once_are_all_answered_in_order(url: str) -> None:
    one = f"GET /closed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    data = (one + "\r\n") * 4 + "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + one + "Connection: close\r\n\r\n"
    got = await raw(url, data.encode())
    assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 4 + [b"401", b"200"]


async def test_a_client_that_leaves_in_the_middle_of_its_request_does_not_harm(
    url: str, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST /task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\nabc"
    await raw(url, head.encode(), seconds=0.1)
    assert (await client.get("/open")).status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
