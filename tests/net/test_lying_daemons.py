"""What a daemon of another kind, or of ill will, answers is checked before anything is done with it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rbee.clients.hive import HiveClient
from rbee.clients.local_model import LocalModel
from rbee.clients.upload import Upload
from rbee.errors import InternalError, RbeeError
from rbee.wire import hive, hub, model_push, models, progress, queen, worker
from tests.kit.scripted import STREAM, Scripted, chunk, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HUGE = 10**400
WORKER = {
    "id": "w", "url": "http://x:1", "model_ref": "m", "backend": "cpu", "device": 0, "state": "idle", "slots_total": 1,
    "slots_available": 1, "pid": 7,
}  # fmt: skip
ROW = {
    "id": "m", "model_ref": "hf:o/m", "provider": "hf", "reference": "o/m", "variant": "Q4", "local_path": "/m",
    "size_bytes": 1, "sha256": None, "downloaded_at_unix": 1.0, "last_used_unix": None,
}  # fmt: skip
SPAWNED = {"worker_id": "w", "url": "http://x:1", "state": "loading", "api_key": "k"}
HANDLE = {
    "request_id": "r", "node": "n", "worker_id": "w", "worker_url": "http://x:1", "api_key": "k", "state": "idle"
}  # fmt: skip
URLS = ("http://[::1", "http://x", "http://x:99999", "http://x:http", "https://x:1", "file:///etc/passwd", "http://:1")

LIES: list[tuple[Any, dict[str, Any], str, Any]] = [
    *((hive.SpawnReply, SPAWNED, "url", url) for url in ("", *URLS)),
    *((hive.WorkerRow, WORKER, "url", url) for url in URLS),
    *((queen.TaskHandle, HANDLE, "worker_url", url) for url in ("", *URLS)),
    *((worker.Readiness, {"ready": False, "state": "loading"}, "progress_url", url) for url in ("http://[", "x", "")),
    *((hive.WorkerRow, WORKER, name, value) for name in ("pid", "slots_total", "device") for value in (-1, HUGE, 1.5)),
    *((hive.WorkerRow, WORKER, "idle_until", value) for value in (-1, 1e300, 1e12)),
    *((models.ModelRow, ROW, "size_bytes", value) for value in (-1, 1 << 63, HUGE)),
    *((models.ModelRow, ROW, "last_used_unix", value) for value in (-1, 1e300)),
    *((hive.Space, {"total": 1, "available": 1}, "available", value) for value in (-1, HUGE, "1")),
    (progress.Progress, {"stage": "copying"}, "bytes_total", HUGE),
    (progress.Progress, {"stage": "copying"}, "speed_mbps", 1e300),
    *((model_push.Received, {"offset": 0}, "offset", value) for value in (-1, HUGE)),
]


@pytest.mark.parametrize(("kind", "good", "field", "value"), LIES)
def test_what_cannot_be_is_no_answer(kind: Any, good: dict[str, Any], field: str, value: object) -> None:
    assert msgspec.json.decode(json.dumps(good), type=kind)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(good | {field: value}), type=kind)


def test_a_worker_that_does_not_listen_yet_has_no_url() -> None:
    assert msgspec.json.decode(json.dumps(WORKER | {"url": ""}), type=hive.WorkerRow).url == ""


@pytest.mark.parametrize("size", [-1, HUGE, 0, None])
def test_a_size_of_the_hub_that_cannot_be_is_not_known(size: int | None) -> None:
    body = json.dumps({"siblings": [{"rfilename": "m.gguf", "size": size, "lfs": {"sha256": "0", "size": size or 0}}]})
    assert hub.decode("o/r", body.encode()).files == [hub.HubFile("m.gguf", 0, None)]


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(96))
    return LocalModel.find(str(tmp_path / "m.gguf"))


def state(*missing: dict[str, Any]) -> bytes:
    data = json.dumps({"missing": missing}).encode()
    return STREAM + chunk(b"event: result\ndata: " + data + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"


async def pushed(server: Scripted, model: LocalModel) -> None:
    async with HiveClient(server.url, "k") as client:
        await Upload(client.receiver(), model, "attic", (), lambda _: None, "rbee-keeper").run()


FILE = {"name": "m.gguf", "sha256": None, "offset": 0}


@pytest.mark.parametrize(
    "missing",
    [
        [FILE | {"name": "other.gguf"}],
        [FILE | {"name": ""}],
        [FILE | {"offset": -1}],
        [FILE | {"offset": 101}],
        [FILE | {"offset": HUGE}],
        [FILE | {"sha256": "0" * 64}],
        [FILE, FILE],
        [FILE, FILE | {"name": "other.gguf"}],
        [{"name": "m.gguf"}],
    ],
)
async def test_a_hive_that_lacks_what_was_not_announced(
    scripted: Callable[..., Awaitable[Scripted]], model: LocalModel, missing: list[dict[str, Any]]
) -> None:
    server = await scripted(state(*missing))
    with pytest.raises(InternalError):
        await pushed(server, model)
    assert len(server.requests) == 1, "and nothing was sent"


@pytest.mark.parametrize("changed", [{"sha256": None}, {"offset": 100}])
async def test_a_hive_that_lacks_nothing_of_a_file_that_it_lacks(
    scripted: Callable[..., Awaitable[Scripted]], model: LocalModel, changed: dict[str, Any]
) -> None:
    """It would be asked again for ever."""
    named = FILE | {"sha256": sha256(model)} | changed
    server = await scripted(state(FILE), state(named))
    with pytest.raises(InternalError):
        await pushed(server, model)


async def test_a_hive_that_keeps_nothing_is_not_sent_to_for_ever(
    scripted: Callable[..., Awaitable[Scripted]], model: LocalModel
) -> None:
    named = FILE | {"sha256": sha256(model)}
    rounds = [answer for _ in range(5) for answer in (state(named), reply(b'{"offset":100}'))]
    server = await scripted(state(FILE), *rounds)
    with pytest.raises(InternalError, match="attic does not keep what it has taken"):
        await pushed(server, model)


@pytest.mark.parametrize(
    "details", [{"attempts": 5}, {"attempts": {}}, {"node": 1, "log": []}, {"hive": 2}, {"url": {}}]
)
async def test_an_error_with_odd_details_is_that_error(
    scripted: Callable[..., Awaitable[Scripted]], details: dict[str, Any]
) -> None:
    body = json.dumps({"error": {"code": "DOWNLOAD_FAILED", "message": "m", "details": details}}).encode()
    server = await scripted(reply(body, "502 Bad Gateway"))
    async with HiveClient(server.url, "k") as client:
        with pytest.raises(RbeeError) as caught:
            await client.resources()
    assert (caught.value.code, caught.value.details) == ("DOWNLOAD_FAILED", {})


def sha256(model: LocalModel) -> str:
    return hashlib.sha256(model.paths[0].read_bytes()).hexdigest()
