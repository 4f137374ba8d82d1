"""A hive that users send models of their own to."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import models, odd_models
from tests.kit.waiting import wait_until
from tests.process.hive.test_models import events_of

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.conftest import Daemon, Daemons

PATH = "/proc/self/cwd/mine.gguf"
"""A path at which each process has another file, as each machine has: the hive's folder holds none."""
REF = f"file:{PATH}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = models.make(tmp_path_factory.mktemp("model") / "m.gguf", width=512)
    return path.read_bytes() + os.urandom(1_000_000)  # what follows the last tensor is nobody's


@pytest.fixture
def start(daemons: Daemons, tmp_path: Path) -> Any:
    return lambda: daemons.start("hive", RBEE_PATHS_MODELS_DIR=str(tmp_path / "models"), RBEE_WORKER_CONTEXT="64")


@pytest.fixture
def client(start: Any) -> Any:
    with start().client() as client:
        yield client


def described(data: bytes, name: str = "mine.gguf") -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"name": name, "size_bytes": len(data), "modified_ns": 1_700_000_000_123_456_789, "sha256": sha256}


def announce(client: httpx.Client, *files: dict[str, Any], reference: str = REF) -> httpx.Response:
    return client.post("/v1/models/push", json={"model_ref": reference, "files": list(files)})


def is_announced(client: httpx.Client, data: bytes) -> bool:
    """Announce a version of the file; one that was sent a moment ago is in its way."""
    answer = announce(client, described(data))
    return answer.status_code == 200 or code(answer) != "MODEL_IN_USE"


def send(client: httpx.Client, data: bytes, offset: int, end: int | None = None) -> httpx.Response:
    sha256 = hashlib.sha256(data).hexdigest()
    return client.put(f"/v1/models/push/{sha256}", params={"offset": offset}, content=data[offset:end])


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def copy(tmp_path: Path) -> Path:
    return tmp_path / "models" / "file" / PATH[1:]


def test_what_was_sent_is_a_model_of_this_node(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    file = described(model)
    missing = announce(client, file).json()["missing"]
    assert missing == [{"name": "mine.gguf", "sha256": file["sha256"], "offset": 0}]
    assert send(client, model, 0, 500_000).json() == {"offset": 500_000}
    assert send(client, model, 0, 500_000).json() == {"offset": 500_000}, "a piece that came twice counts once"
    assert send(client, model, 600_000).json() == {"offset": 500_000}, "one before it is missing"
    assert announce(client, file).json()["missing"][0]["offset"] == 500_000
    assert send(client, model, 500_000).json() == {"offset": len(model)}
    row = announce(client, file).json()["model"]
    assert (row["model_ref"], row["id"], row["variant"], row["sha256"]) == (REF, "mine", "", file["sha256"])
    assert copy(tmp_path).read_bytes() == model
    assert copy(tmp_path).stat().st_mtime_ns == file["modified_ns"]
    assert list(copy(tmp_path).parent.iterdir()) == [copy(tmp_path)]
    assert announce(client, file).json()["model"] == row, "and it is known from then on"
    assert client.get("/v1/models/show", params={"model_ref": REF}).json()["header"]["architecture"] == "llama"
    offers = client.get("/v1/models/files", params={"model_ref": REF}).json()
    assert offers["file"] == {"size_bytes": len(model), "modified_ns": file["modified_ns"]}
    assert [one["sha256"] for one in offers["models"][0]["files"]] == [file["sha256"]]
    assert client.post("/v1/workers/spawn", json={"model_ref": REF}).json()["state"] == "loading"
    assert client.delete("/v1/models/mine").status_code == 409
    (worker,) = client.get("/v1/workers/list").json()["workers"]
    client.delete(f"/v1/workers/{worker['id']}")


def test_one_whose_last_announcement_was_lost_is_not_taken_for_a_model(client: httpx.Client, model: bytes) -> None:
    announce(client, described(model))
    send(client, model, 0)
    asked = announce(client, described(model) | {"sha256": None}).json()
    assert asked == {"missing": [{"name": "mine.gguf", "sha256": None, "offset": len(model)}], "model": None,
                     "local_path": None}  # fmt: skip
    assert announce(client, described(model)).json()["model"]["id"] == "mine"


def test_a_removed_one_leaves_no_folder(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    announce(client, described(model))
    send(client, model, 0)
    announce(client, described(model))
    assert client.delete("/v1/models/mine").status_code == 204
    assert list((tmp_path / "models").iterdir()) == []
    again = client.post("/v1/workers/spawn", json={"model_ref": REF})
    assert code(again) == "MODEL_NOT_FOUND"
    assert "models push" in again.json()["error"]["hint"]


def test_it_may_be_announced_by_several_at_once_and_again(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    """As by a user whose first command has lost its connection at the very end."""
    announce(client, described(model))
    send(client, model, 0)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: announce(client, described(model)).json(), range(4)))
    assert [answer["model"]["id"] for answer in answers] == ["mine"] * 4
    assert copy(tmp_path).read_bytes() == model
    later = described(model) | {"modified_ns": 1_800_000_000_000_000_000}
    assert announce(client, later).json()["model"]["id"] == "mine"
    assert copy(tmp_path).stat().st_mtime_ns == later["modified_ns"], "it is known as this version from then on"


def test_one_file_may_be_sent_by_two_paths_at_once(client: httpx.Client, model: bytes) -> None:
    references = [f"file:/proc/self/cwd/{number}/mine.gguf" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda one: announce(client, described(model), reference=one), references))
    (first,) = [one for one, answer in zip(references, answers, strict=True) if answer.status_code == 200]
    assert {code(answer) for answer in answers if answer.status_code != 200} == {"MODEL_IN_USE"}
    send(client, model, 0)
    assert announce(client, described(model), reference=first).json()["model"]["model_ref"] == first
    for reference in set(references) - {first}:
        assert announce(client, described(model), reference=reference).json()["missing"][0]["offset"] == 0
        send(client, model, 0)
        assert announce(client, described(model), reference=reference).json()["model"]["model_ref"] == reference


def test_a_new_version_takes_the_place_of_the_old(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    other = model[:-4] + b"else"
    for data in (model, other):
        wait_until(partial(is_announced, client, data), "the file is open")
        assert send(client, data, 0, 700_000).json()["offset"] == 700_000
    assert announce(client, described(other)).json()["missing"][0]["offset"] == 700_000
    send(client, other, 700_000)
    assert announce(client, described(other)).json()["model"]["sha256"] == described(other)["sha256"]
    assert copy(tmp_path).read_bytes() == other
    assert len(client.get("/v1/models/list").json()["models"]) == 1


def test_a_killed_hive_goes_on_where_it_was(start: Any, model: bytes, tmp_path: Path) -> None:
    daemon: Daemon = start()
    with daemon.client() as client:
        announce(client, described(model))
        send(client, model, 0, 800_000)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    with start().client() as client:
        assert code(send(client, model, 800_000)) == "MODEL_NOT_FOUND", "it is to be announced again"
        assert announce(client, described(model)).json()["missing"][0]["offset"] == 800_000
        send(client, model, 800_000)
        assert announce(client, described(model)).json()["model"]["id"] == "mine"
    assert copy(tmp_path).read_bytes() == model


def test_a_lost_database_is_made_anew_from_the_files(start: Any, model: bytes, tmp_path: Path) -> None:
    daemon: Daemon = start()
    with daemon.client() as client:
        announce(client, described(model))
        send(client, model, 0)
        announce(client, described(model))
    daemon.signal()
    daemon.wait()
    for path in daemon.home.glob("models.db*"):
        path.unlink()
    with start().client() as client:
        (row,) = client.get("/v1/models/list").json()["models"]
        assert (row["model_ref"], row["local_path"]) == (REF, str(copy(tmp_path)))


def test_a_split_model_comes_with_all_its_files(client: httpx.Client, tmp_path: Path) -> None:
    first = models.make(tmp_path / "whole.gguf", width=512, tensors_per_file=6)
    parts = sorted(first.parent.glob("whole-*.gguf"))
    assert len(parts) > 1
    contents = [path.read_bytes() for path in parts]
    files = [described(data, path.name) for path, data in zip(parts, contents, strict=True)]
    reference = f"file:/proc/self/cwd/{parts[0].name}"
    assert code(announce(client, *files[1:], reference=reference)) == "INVALID_REQUEST"
    assert code(announce(client, *reversed(files), reference=reference)) == "INVALID_REQUEST"
    for data in contents:
        missing = announce(client, *files, reference=reference).json()["missing"]
        assert missing[0]["sha256"] == hashlib.sha256(data).hexdigest()
        send(client, data, 0)
    row = announce(client, *files, reference=reference).json()["model"]
    assert row["size_bytes"] == sum(map(len, contents))
    shown = client.get("/v1/models/show", params={"model_ref": reference}).json()
    assert shown["size_bytes"] == row["size_bytes"]


def test_the_very_file_is_not_sent(client: httpx.Client, tmp_path: Path) -> None:
    path = models.make(tmp_path / "here.gguf", width=512)
    file = described(path.read_bytes(), path.name) | {"modified_ns": path.stat().st_mtime_ns}
    state = announce(client, file, reference=f"file:{path}").json()
    assert state == {"missing": [], "model": None, "local_path": str(path)}


def test_a_file_that_comes_to_its_path_later_is_meant_then(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    reference = f"file:{path}"
    announce(client, described(model), reference=reference)
    send(client, model, 0)
    row = announce(client, described(model), reference=reference).json()["model"]

    def shown() -> str:
        return str(client.get("/v1/models/show", params={"model_ref": reference}).json()["local_path"])

    assert shown() == str(tmp_path / "models" / "file" / reference.removeprefix("file:/"))
    clock = tmp_path / "clock"

    def has_moved() -> bool:
        clock.touch()
        return clock.stat().st_ctime > row["downloaded_at_unix"]

    wait_until(has_moved, "the clock of files has moved: it stands still for some milliseconds")
    shutil.copy(models.make(tmp_path / "new.gguf", width=512), path)
    os.utime(path, (1, 1))  # it is an old one that came now
    assert shown() == str(path)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size_bytes": 1 << 60}, "INSUFFICIENT_DISK"),
    ({"size_bytes": 1 << 60, "sha256": None}, "INSUFFICIENT_DISK"),
    ({"size_bytes": 0}, "INVALID_REQUEST"),
    ({"name": "../mine.gguf"}, "INVALID_REQUEST"),
    ({"name": "other.gguf"}, "INVALID_REQUEST"),
    ({"name": ".mine.gguf"}, "INVALID_REQUEST"),
    ({"sha256": "no"}, "INVALID_REQUEST"),
]
NO_FILES = ["hf:bees/model/mine.gguf", "builtin:bee-stories", "file:/a/../mine.gguf", "mine"]


def test_what_cannot_come_is_refused_before_it_is_sent(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    for changed, expected in REFUSED:
        assert code(announce(client, described(model) | changed)) == expected, changed
    for reference in NO_FILES:
        assert code(announce(client, described(model), reference=reference)) == "INVALID_REQUEST", reference
    assert not (tmp_path / "models").exists()


def test_pieces_that_are_not_of_the_file_are_refused(client: httpx.Client, model: bytes, tmp_path: Path) -> None:
    assert code(send(client, model, 0)) == "MODEL_NOT_FOUND", "nobody has announced it"
    page = b"<html>no model</html>"
    announce(client, described(page))
    assert code(send(client, page, 0)) == "INVALID_REQUEST", "it does not begin as a model does"
    announce(client, described(model))
    sha256 = described(model)["sha256"]
    too_long = client.put(f"/v1/models/push/{sha256}", params={"offset": 0}, content=model + b"more")
    assert code(too_long) == "INVALID_REQUEST"
    announce(client, described(model))
    other = client.put(f"/v1/models/push/{sha256}", params={"offset": 0}, content=model[:-1] + b"?")
    assert other.json() == {"offset": len(model)}
    assert code(announce(client, described(model))) == "CHECKSUM_MISMATCH"
    assert not copy(tmp_path).exists()
    assert announce(client, described(model)).json()["missing"][0]["offset"] == 0
    for number in ("-1", "x", ""):
        assert code(client.put(f"/v1/models/push/{sha256}", params={"offset": number}, content=b"x")) == (
            "INVALID_REQUEST"
        )


def test_the_end_of_the_check_can_be_followed(client: httpx.Client, model: bytes) -> None:
    announce(client, described(model))
    send(client, model, 0)
    wanted = {"model_ref": REF, "files": [described(model)]}
    accept = {"Accept": "text/event-stream"}
    with client.stream("POST", "/v1/models/push", json=wanted, headers=accept) as answer:
        events = list(events_of(answer))
    assert events[0] == ("progress", {"stage": "verifying"})
    assert events[-1][0] == "result"
    assert events[-1][1]["model"]["id"] == "mine"


def test_what_this_node_could_not_use_is_refused_with_the_first_piece(client: httpx.Client, tmp_path: Path) -> None:
    data = odd_models.encoder_decoder(tmp_path / "t5.gguf").read_bytes() + bytes(4_000_000)
    announce(client, described(data))
    refused = send(client, data, 0, 2_000_000)
    assert code(refused) == "MODEL_LOAD_FAILED"
    assert "an encoder-decoder" in refused.json()["error"]["message"]
    assert list(copy(tmp_path).parent.iterdir()) == []
