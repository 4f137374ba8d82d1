"""A hive that fetches models from the hub: real processes, real HTTP, the stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import pytest

from rbee.adapters import tokens
from tests.kit import models, odd_models
from tests.kit.hub import Fault, Hub
from tests.kit.hub_cache import store
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.conftest import Daemon, Daemons

REF = "hf:bees/model"
FILE = "model.Q4_K_M.gguf"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = models.make(tmp_path_factory.mktemp("model") / FILE, width=512)
    with path.open("ab") as file:
        file.write(os.urandom(3_000_000))  # what follows the last tensor is nobody's
    return path


@pytest.fixture(scope="module")
def one_hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(one_hub: Hub, model: Path) -> Hub:
    one_hub.reset()
    one_hub.add("bees/model", model)
    return one_hub


def environment(hub: Hub, models_dir: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "RBEE_HUB_PRIVATE_REDIRECTS": "true",
        "RBEE_PATHS_MODELS_DIR": str(models_dir),
        "RBEE_TIMEOUTS_DOWNLOAD_DELAYS": "0.01 0.01 0.01 0.01 0.01",
        "RBEE_WORKER_CONTEXT": "64",
        "RBEE_WORKER_KV": "f16",
    }


@pytest.fixture
def start(hub: Hub, daemons: Daemons, tmp_path: Path) -> Callable[..., Daemon]:
    """Start a hive of the test's own, with its models in `tmp_path`."""
    return lambda **more: daemons.start("hive", **(environment(hub, tmp_path / "models") | more))


@pytest.fixture(scope="module")
def one_hive(one_hub: Hub, shared_daemons: Daemons, tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    return shared_daemons.start("hive", **environment(one_hub, tmp_path_factory.mktemp("models")))


@pytest.fixture
def hive(one_hive: Daemon, hub: Hub) -> Iterator[Daemon]:
    """Give the hive that tests share: without models and workers, whatever the test before has done."""
    assert hub
    yield one_hive
    with one_hive.client() as client:
        for worker in client.get("/v1/workers/list").json()["workers"]:
            client.delete(f"/v1/workers/{worker['id']}")
        wait_until(lambda: client.get("/v1/workers/list").json()["workers"] == [])
        for row in client.get("/v1/models/list").json()["models"]:
            assert client.delete(f"/v1/models/{quote(row['id'], safe='')}").status_code == 204
    shutil.rmtree(models_of(one_hive) / "hf", ignore_errors=True)


def models_of(hive: Daemon) -> Path:
    """Return the folder of a hive's models."""
    return Path(psutil.Process(hive.process.pid).environ()["RBEE_PATHS_MODELS_DIR"])


def events_of(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = "message"
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and line != "data: [DONE]":
            yield name, json.loads(line.removeprefix("data: "))
            name = "message"


def stream(client: httpx.Client, path: str, reference: str = REF) -> Any:
    return client.stream("POST", path, json={"model_ref": reference}, headers={"Accept": "text/event-stream"})


def pulled(client: httpx.Client, reference: str = REF) -> list[tuple[str, dict[str, Any]]]:
    with stream(client, "/v1/models/download", reference) as answer:
        return list(events_of(answer))


def test_a_worker_of_a_model_that_is_not_here_is_fetched_for_it(hive: Daemon, hub: Hub, model: Path) -> None:
    hub.then(Fault(reset=0.4, rate=20e6))
    with hive.client() as client:
        with stream(client, "/v1/workers/spawn") as answer:
            seen = list(events_of(answer))
        progress = [event for name, event in seen if name == "progress"]
        steps = [event for event in progress if event["stage"] == "downloading"]
        assert all(set(event) == {"stage", "bytes_downloaded", "bytes_total", "speed_mbps"} for event in steps)
        assert [event["bytes_downloaded"] for event in steps] == sorted(event["bytes_downloaded"] for event in steps)
        assert steps[-1]["bytes_downloaded"] == steps[-1]["bytes_total"] == model.stat().st_size
        (retry,) = [event for event in progress if event["stage"] == "retrying"]
        assert (retry["attempt"], retry["attempts"], retry["delay_ms"]) == (2, 6, 10)
        path = models_of(hive) / "hf/bees/model" / FILE
        assert progress[-2:] == [{"stage": "verifying"}, {"stage": "complete", "local_path": str(path)}]
        assert seen[-1][0] == "worker"
        assert path.read_bytes() == model.read_bytes()
        (row,) = client.get("/v1/models/list").json()["models"]
        assert row["downloaded_at_unix"] <= row["last_used_unix"] <= time.time()
        assert (row["id"], row["provider"], row["reference"], row["variant"], row["local_path"], row["size_bytes"]) == (
            ("model.Q4_K_M", "hf", "bees/model", "Q4_K_M", str(path), model.stat().st_size)
        )
        assert hub.sent == row["size_bytes"]


def test_what_is_in_the_catalogue_asks_nobody(hive: Daemon, hub: Hub) -> None:
    with hive.client() as client:
        pulled(client)
        asked = len(hub.asked)
        again = client.post("/v1/models/download", json={"model_ref": REF}).json()
        assert again == {"local_path": client.get("/v1/models/list").json()["models"][0]["local_path"]}
        assert pulled(client, f"{REF}:Q4_K_M")[-1][0] == "model"
        assert len(hub.asked) == asked, "the variant that was chosen is known by its name too"
        pulled(client, f"{REF}/{FILE}")
        assert len(client.get("/v1/models/list").json()["models"]) == 1
        assert hub.sent == client.get("/v1/models/list").json()["models"][0]["size_bytes"]


def test_progress_can_be_read_late_and_after_the_end(hive: Daemon, hub: Hub) -> None:
    hub.fault = Fault(rate=5e6)
    with hive.client() as client:
        download_id = client.post("/v1/models/download", json={"model_ref": REF}).json()["download_id"]
        for _ in range(2):
            with client.stream("GET", "/v1/models/download/progress", params={"id": download_id}) as answer:
                lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
            assert lines[-1] == "data: [DONE]"
            assert json.loads(lines[-2].removeprefix("data: "))["stage"] == "complete"
        assert len(lines) == 2, "of one that has ended only the last event is sent"
        unknown = client.get("/v1/models/download/progress", params={"id": "none"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")


def test_two_share_a_download_and_one_of_them_may_go(hive: Daemon, hub: Hub, model: Path) -> None:
    hub.fault = Fault(rate=4e6)
    ends: list[tuple[str, dict[str, Any]]] = []
    joined = threading.Event()
    with hive.client() as client, hive.client() as other:

        def stay() -> None:
            with stream(other, "/v1/models/download") as answer:
                for event in events_of(answer):
                    ends.append(event)
                    joined.set()

        with stream(client, "/v1/models/download") as first:
            events = events_of(first)
            next(event for _, event in events if event.get("stage") == "downloading")
            stays = threading.Thread(target=stay)
            stays.start()
            assert joined.wait(20), "it is told how the download stands as soon as it shares it"
        stays.join(20)
        assert ends[-1][0] == "model"
        assert hub.sent == model.stat().st_size


def test_the_last_caller_to_leave_ends_it_and_the_next_resumes_it(hive: Daemon, hub: Hub, model: Path) -> None:
    hub.fault = Fault(stall=0.5)
    part = models_of(hive) / "hf/bees/model" / f"{FILE}.part"
    with hive.client() as client:
        with stream(client, "/v1/models/download") as answer:
            events = events_of(answer)
            next(event for _, event in events if event.get("stage") == "downloading")
            wait_until(lambda: part.stat().st_size == model.stat().st_size // 2)
        hub.fault = Fault()
        assert pulled(client)[-1][0] == "model"
    assert hub.sent == model.stat().st_size


def test_a_download_without_a_stream_ends_when_it_is_given_up(hive: Daemon, hub: Hub) -> None:
    hub.fault = Fault(stall=0.5)
    with hive.client() as client:
        download_id = client.post("/v1/models/download", json={"model_ref": REF}).json()["download_id"]
        assert client.post("/v1/models/download", json={"model_ref": REF}).json()["download_id"] == download_id
        assert client.delete(f"/v1/models/download/{download_id}").status_code == 204
        answer = client.get("/v1/models/download/progress", params={"id": download_id})
        assert json.loads(answer.text.splitlines()[0].removeprefix("data: "))["code"] == "CANCELLED"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_hive_that_ends_leaves_what_the_next_one_goes_on_with(
    number: signal.Signals, start: Callable[..., Daemon], hub: Hub, tmp_path: Path, model: Path
) -> None:
    daemon = start()
    hub.fault = Fault(stall=0.5)
    part = tmp_path / "models/hf/bees/model" / f"{FILE}.part"
    with daemon.client() as client:
        client.post("/v1/models/download", json={"model_ref": REF})
    wait_until(lambda: part.exists() and part.stat().st_size >= model.stat().st_size * 0.3, "a third of it is there")
    started = time.monotonic()
    daemon.signal(number)
    code, _ = daemon.wait()
    assert time.monotonic() - started < 5
    assert code == (0 if number is signal.SIGTERM else -9)
    there = part.stat().st_size
    assert 0 < there < model.stat().st_size
    hub.fault = Fault()
    with start().client() as client:
        assert pulled(client)[-1][0] == "model"
    assert hub.content()[-1].sent == model.stat().st_size - there


def test_a_model_is_removed_with_its_file_but_not_while_a_worker_has_it(hive: Daemon, hub: Hub) -> None:
    with hive.client() as client:
        worker = client.post("/v1/workers/spawn", json={"model_ref": REF}).json()
        refused = client.delete("/v1/models/model.Q4_K_M")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "MODEL_IN_USE")
        assert refused.json()["error"]["details"]["workers"] == [worker["worker_id"]]
        unknown = client.delete("/v1/models/Model.Q4").json()["error"]
        assert (unknown["code"], unknown["hint"][:28]) == ("MODEL_NOT_FOUND", "did you mean model.Q4_K_M? `")
        client.delete(f"/v1/workers/{worker['worker_id']}")
        wait_until(lambda: client.get("/v1/workers/list").json()["workers"] == [])
        assert client.delete("/v1/models/model.Q4_K_M").status_code == 204
        assert client.get("/v1/models/list").json() == {"models": []}
        assert not (models_of(hive) / "hf").exists()
        assert client.delete("/v1/models/model.Q4_K_M").status_code == 404


def test_a_damaged_catalogue_is_rebuilt_from_the_files(start: Callable[..., Daemon], hub: Hub, tmp_path: Path) -> None:
    daemon = start()
    with daemon.client() as client:
        pulled(client)
    daemon.signal()
    daemon.wait()
    database = daemon.home / "models.db"
    database.write_bytes(b"no database" * 1000)
    folder = tmp_path / "models/hf/bees/shouting"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "models/hf/bees/model" / FILE, folder / "LOUD.Q4_K_M.GGUF")
    daemon = start()
    sent = hub.sent
    with daemon.client() as client:
        loud, row = sorted(client.get("/v1/models/list").json()["models"], key=lambda row: str(row["id"]))
        assert (loud["id"], loud["reference"]) == ("LOUD.Q4_K_M", "bees/shouting")
        assert (row["id"], row["reference"]) == ("model.Q4_K_M", "bees/model")
        assert client.post("/v1/models/download", json={"model_ref": f"{REF}/{FILE}"}).json()["local_path"]
        assert pulled(client)[-1][1]["id"] == row["id"], "the hub is asked what the reference means, and no more"
    assert hub.sent == sent
    said = [line["message"] for line in daemon.log()]
    assert any("models.db is damaged" in line for line in said)
    assert any("rebuilt from the files on disk: " in line and "model.Q4_K_M" in line for line in said)


def test_a_rebuilt_catalogue_offers_its_models_to_others_too(
    start: Callable[..., Daemon], hub: Hub, model: Path
) -> None:
    daemon = start()
    with daemon.client() as client:
        pulled(client)
        (offered,) = client.get("/v1/models/files", params={"model_ref": REF}).json()["models"]
    daemon.signal()
    daemon.wait()
    (daemon.home / "models.db").write_bytes(b"no database" * 1000)
    with start().client() as client:
        asked = {"model_ref": f"{REF}/{FILE}"}
        wait_until(lambda: bool(client.get("/v1/models/files", params=asked).json()["models"]))
        (again,) = client.get("/v1/models/files", params=asked).json()["models"]
        assert again["files"] == offered["files"]
        (row,) = client.get("/v1/models/list").json()["models"]
        assert row["sha256"] == digest(model)
        assert client.get(f"/v1/models/content/{digest(model)}").content == model.read_bytes()


def test_folders_of_others_among_the_models_are_left_alone(
    start: Callable[..., Daemon], tmp_path: Path, model: Path
) -> None:
    for folder in (os.fsdecode(b"\xff\xfe"), "b..s", "my bees"):
        path = tmp_path / "models/hf" / folder / "model/model.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(model.read_bytes()[:100])
    with start().client() as client:
        assert client.get("/v1/models/list").json() == {"models": []}


def test_a_file_that_somebody_removed_is_fetched_again(hive: Daemon, hub: Hub) -> None:
    with hive.client() as client:
        pulled(client)
        (models_of(hive) / "hf/bees/model" / FILE).unlink()
        assert pulled(client)[-1][0] == "model"
    assert hub.sent == 2 * hub.repositories["bees/model"].files[FILE].size


def test_a_file_that_was_cut_short_is_fetched_again(hive: Daemon, hub: Hub) -> None:
    size = hub.repositories["bees/model"].files[FILE].size
    path = models_of(hive) / "hf/bees/model" / FILE
    with hive.client() as client:
        pulled(client)
        os.truncate(path, size // 2)
        assert client.post("/v1/workers/spawn", json={"model_ref": REF}).status_code == 200
    assert path.stat().st_size == size
    assert hub.sent == 2 * size


def test_of_a_split_model_only_the_file_that_was_removed_is_fetched_again(
    hive: Daemon, hub: Hub, tmp_path: Path
) -> None:
    models.make(tmp_path / "big.gguf", tensors_per_file=8)
    parts = sorted(tmp_path.glob("big-*.gguf"))
    hub.add("bees/big", *parts)
    with hive.client() as client:
        pulled(client, "hf:bees/big")
        sent = hub.sent
        (models_of(hive) / "hf/bees/big" / parts[1].name).unlink()
        assert client.post("/v1/workers/spawn", json={"model_ref": "hf:bees/big"}).status_code == 200
    assert hub.sent - sent == parts[1].stat().st_size


@pytest.mark.parametrize("more", [1000, 0])
def test_a_file_that_the_hub_has_changed_is_another_one_in_the_catalogue_too(
    more: int, hive: Daemon, hub: Hub, tmp_path: Path, model: Path
) -> None:
    with hive.client() as client:
        pulled(client)
        changed = tmp_path / FILE
        changed.write_bytes(model.read_bytes()[:-1000] + os.urandom(1000 + more))
        hub.add("bees/model", changed)
        row = pulled(client, f"{REF}/{FILE}")[-1][1]
        assert (row["size_bytes"], row["sha256"]) == (changed.stat().st_size, digest(changed))
        assert client.get("/v1/models/list").json() == {"models": [row]}
        assert pulled(client)[-1][1] == row, "the name by which it was first fetched means it too"


def test_a_file_in_the_users_own_cache_is_used_where_it_is(
    start: Callable[..., Daemon], hub: Hub, tmp_path: Path, model: Path
) -> None:
    link = store(tmp_path / "hf-cache", "bees/model", FILE, model.read_bytes(), revision="a" * 40)
    daemon = start(HF_HUB_CACHE=str(tmp_path / "hf-cache"))
    with daemon.client() as client:
        assert pulled(client)[-1][1]["local_path"] == str(link)
        assert client.delete("/v1/models/model.Q4_K_M").status_code == 204
    assert hub.sent == 0
    assert link.exists(), "it is the user's"


def test_a_disk_that_is_too_small_is_an_error_before_a_byte_is_fetched(hive: Daemon, hub: Hub) -> None:
    hub.repositories["bees/model"].files[FILE].size = 10**15
    with hive.client() as client:
        answer = client.post("/v1/workers/spawn", json={"model_ref": REF})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (507, "INSUFFICIENT_DISK")
    details = error["details"]
    assert details["needed"] == 10**9
    assert abs(details["needed"] - details["available"] - details["difference"]) <= 1
    assert hub.sent == 0


def test_a_password_in_the_hubs_address_is_never_shown(start: Callable[..., Daemon], hub: Hub) -> None:
    daemon = start(HF_ENDPOINT=hub.url.replace("//", "//bee:secret@"))
    with daemon.client() as client:
        events = pulled(client)
    assert events[-1][0] == "model"
    assert events[0][1]["human"].endswith(f" from {hub.url.removeprefix('http://')}")
    assert "secret" not in json.dumps([*events, *daemon.log()])


def test_a_hub_without_sizes_is_not_taken_for_one_of_empty_files(hive: Daemon, hub: Hub) -> None:
    file = hub.repositories["bees/model"].files[FILE]
    file.size, file.is_large = 0, False
    with hive.client() as client:
        error = client.post("/v1/workers/spawn", json={"model_ref": REF}).json()["error"]
        assert error["code"] == "DOWNLOAD_FAILED"
        assert error["message"].endswith(f" does not say how large {FILE} is")
        assert client.get("/v1/models/list").json() == {"models": []}
    assert not (models_of(hive) / "hf").exists()


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        ("hf:bees/none", 404, "MODEL_NOT_FOUND"),
        ("hf:bees/model:Q2_K", 404, "MODEL_NOT_FOUND"),
        ("hf:bees/secret", 403, "MODEL_ACCESS_DENIED"),
    ],
)
def test_what_the_hub_has_not_for_us_is_an_error_of_its_own(
    reference: str, status: int, code: str, hive: Daemon, hub: Hub, model: Path
) -> None:
    hub.add("bees/secret", model)
    hub.protect("bees/secret", "hf_x")
    with hive.client() as client:
        answer = client.post("/v1/workers/spawn", json={"model_ref": reference})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        told_so = client.post("/v1/models/download", json={"model_ref": reference}).json()
        events = client.get("/v1/models/download/progress", params={"id": told_so["download_id"]}).text
        assert code in events


def test_a_split_model_is_fetched_completely_and_loaded(hive: Daemon, hub: Hub, tmp_path: Path) -> None:
    models.make(tmp_path / "big.gguf", tensors_per_file=8)
    parts = sorted(tmp_path.glob("big-*.gguf"))
    hub.add("bees/big", *parts)
    with hive.client() as client:
        row = pulled(client, "hf:bees/big")[-1][1]
        assert row["size_bytes"] == sum(part.stat().st_size for part in parts)
        assert row["id"] == "big-00001-of-00003"
        worker = client.post("/v1/workers/spawn", json={"model_ref": "hf:bees/big"}).json()
        wait_until(lambda: [one["state"] for one in client.get("/v1/workers/list").json()["workers"]] == ["idle"])
        client.delete(f"/v1/workers/{worker['worker_id']}")
        wait_until(lambda: client.get("/v1/workers/list").json()["workers"] == [])
        assert client.delete(f"/v1/models/{row['id']}").status_code == 204
    assert not (models_of(hive) / "hf").exists()


def test_show_describes_what_is_here_and_fetches_nothing(hive: Daemon, hub: Hub, model: Path) -> None:
    with hive.client() as client:
        missing = client.get("/v1/models/show", params={"model_ref": REF})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")
        assert hub.asked == []
        pulled(client)
        for asked in (REF, "model.Q4_K_M", f"file:{model}"):
            found = client.get("/v1/models/show", params={"model_ref": asked}).json()
            assert found["size_bytes"] == model.stat().st_size
            assert found["header"]["architecture"] == "llama"
        bundled = client.get("/v1/models/show", params={"model_ref": "builtin:bee-stories"}).json()
        assert (bundled["model"], bundled["context"]) == (None, 4 * 64)
        refused = client.post("/v1/models/download", json={"model_ref": "builtin:bee-stories"}).json()["error"]
        assert refused["code"] == "INVALID_REQUEST"
        assert refused["message"] == "builtin:bee-stories cannot be fetched: only models of the Hugging Face hub can"


def test_what_does_not_fit_is_reckoned_for_all_slots_and_the_longest_context_is_offered(
    hive: Daemon, hub: Hub, model: Path
) -> None:
    slots, context, per_token = 64, 1 << 24, 2 * 2 * 2 * 512  # 2 bytes, keys and values, 2 layers, 512 numbers
    weights = int(model.stat().st_size * 1.2)
    with hive.client() as client:
        asked = {"model_ref": REF, "slots": slots, "context": context}
        answer = client.post("/v1/workers/spawn", json=asked)
        assert client.get("/v1/workers/list").json() == {"workers": []}
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "VRAM_EXHAUSTED")
    details = error["details"]
    assert details["required"] == -(-(weights + per_token * slots * context) // 1_000_000)
    longest = details["longest_context"]
    assert longest % 64 == 0
    left = details["available"] * 1_000_000 - weights - longest * slots * per_token
    assert -1_000_000 < left < 64 * slots * per_token
    assert f"a context of {longest} tokens instead of {context}" in error["hint"]


def test_files_that_other_nodes_may_copy_are_listed_with_their_hashes(hive: Daemon, hub: Hub, model: Path) -> None:
    hub.add("bees/model", model, name="model.Q8_0.gguf")
    with hive.client() as client:

        def files(reference: str) -> Any:
            return client.get("/v1/models/files", params={"model_ref": reference}).json()

        assert files(REF) == {"is_here": False, "models": []}
        pulled(client)
        file = {"name": FILE, "size_bytes": model.stat().st_size, "sha256": digest(model)}
        mine = {"variant": "Q4_K_M", "is_meant": True, "files": [file]}
        assert files(REF) == files(f"{REF}:Q4_K_M") == {"is_here": True, "models": [mine]}
        assert files(f"{REF}:Q8_0") == {"is_here": False, "models": [mine | {"is_meant": False}]}
        assert files("builtin:bee-stories")["models"] == []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_given_from_any_byte_on(hive: Daemon, hub: Hub, model: Path) -> None:
    sha256, data = digest(model), model.read_bytes()
    path = f"/v1/models/content/{sha256}"
    with hive.client() as client:
        assert client.get(path).status_code == 404
        pulled(client)
        whole = client.get(path)
        assert (whole.status_code, whole.headers["ETag"], whole.content) == (200, f'"{sha256}"', data)
        assert int(client.head(path).headers["Content-Length"]) == len(data)
        for asked, first, last in (
            ("bytes=1000000-", 1_000_000, len(data) - 1),
            ("bytes=0-0", 0, 0),
            (f"bytes=5-{10**17}", 5, len(data) - 1),
        ):
            part = client.get(path, headers={"Range": asked, "If-Range": f'"{sha256}"'})
            assert (part.status_code, part.content) == (206, data[first : last + 1])
            assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
        for headers in (
            {"Range": "bytes=5-", "If-Range": '"another"'},
            {"Range": "bytes=-5"},
            {"Range": "bytes=1-2,4-5"},
        ):
            assert client.get(path, headers=headers).content == data
        beyond = client.get(path, headers={"Range": f"bytes={len(data)}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")


def test_the_key_of_a_file_opens_that_file_alone(hive: Daemon, hub: Hub, model: Path) -> None:
    sha256 = digest(model)
    with hive.client() as client:
        pulled(client)
        client.headers["Authorization"] = f"Bearer {tokens.content_key(hive.token, sha256)}"
        assert client.get(f"/v1/models/content/{sha256}").content == model.read_bytes()
        for path in (f"/v1/models/content/{'0' * 64}", "/v1/models/list", f"/v1/models/content/..%2f{sha256}"):
            assert client.get(path).status_code == 401


@pytest.mark.parametrize("asked", ["..%2f..%2fmodels.db", "%2fetc%2fpasswd", FILE, "model.Q4_K_M", "%00", "A" * 64])
def test_a_content_that_is_no_hash_of_a_model_is_not_there(asked: str, hive: Daemon, hub: Hub) -> None:
    with hive.client() as client:
        pulled(client)
        assert client.get(f"/v1/models/content/{asked}").status_code == 404


def test_a_file_that_was_changed_on_the_disk_is_not_given(hive: Daemon, hub: Hub, model: Path) -> None:
    with hive.client() as client:
        path = Path(pulled(client)[-1][1]["local_path"])
        with path.open("ab") as file:
            file.write(b"more")
        assert client.get(f"/v1/models/content/{digest(model)}").status_code == 404


UNUSABLE: dict[str, Callable[[Path], Path]] = {
    "does not know the architecture bumblebee": lambda path: odd_models.chain(path, "bumblebee"),
    "tensors of the type 144": lambda path: odd_models.of_tensor_type(path, 144),
    "an embedding model": lambda path: odd_models.chain(path, "bert", attention__causal=False, pooling_type=1),
    "an encoder-decoder": odd_models.encoder_decoder,
}


def test_what_could_not_be_used_here_is_not_fetched_to_its_end(hub: Hub, hive: Daemon, tmp_path: Path) -> None:
    hub.fault = Fault(rate=20e6)
    logs = set((hive.home / "logs").glob("worker-*.log"))
    with hive.client() as client:
        for number, (words, make) in enumerate(UNUSABLE.items()):
            odd = make(tmp_path / f"odd{number}.Q4_K_M.gguf")
            with odd.open("ab") as file:
                file.truncate(300_000_000)
            hub.add(f"bees/odd{number}", odd, sha256="0" * 64)
            sent = hub.sent
            name, error = pulled(client, f"hf:bees/odd{number}")[-1]
            assert (name, error["error"]["code"]) == ("message", "MODEL_LOAD_FAILED")
            assert words in error["error"]["message"]
            assert f"odd{number}.Q4_K_M.gguf " in error["error"]["message"]
            assert hub.sent - sent < 150_000_000
            assert not [path for path in models_of(hive).rglob("*") if path.is_file()]
            refused = client.post("/v1/workers/spawn", json={"model_ref": f"file:{odd}"}).json()["error"]
            assert words in refused["message"]
        assert client.get("/v1/models/list").json() == {"models": []}
        assert client.get("/v1/workers/list").json() == {"workers": []}
    assert set((hive.home / "logs").glob("worker-*.log")) == logs, "no worker was started"


NAMES = (
    "my model (1).gguf",
    "q 4/a+b,c@d=e~f%20g.gguf",
    "é-蜂-🐝 #1?.gguf",
    'it\'s `x`; $HOME & "y".gguf',
    "a:b..c.gguf",
)


def test_a_file_is_fetched_and_found_by_whatever_name_it_has(hub: Hub, hive: Daemon, model: Path) -> None:
    for name in (*NAMES, "other.Q8_0.gguf"):
        hub.add("bees/odd", model, name=name)
    with hive.client() as client:
        for name in NAMES:
            reference = f"hf:bees/odd/{name}"
            seen = pulled(client, reference)
            assert seen[-1][0] == "model", seen[-1]
            assert seen[-1][1]["model_ref"] == reference
            path = models_of(hive) / "hf/bees/odd" / name
            assert path.read_bytes() == model.read_bytes()
        shown = client.get("/v1/models/show", params={"model_ref": reference}).json()
        assert (shown["model_ref"], shown["local_path"]) == (reference, str(path))
        with stream(client, "/v1/workers/spawn", f"file:{path.with_name(NAMES[0])}") as answer:
            assert list(events_of(answer))[-1][0] == "worker"
        (worker,) = client.get("/v1/workers/list").json()["workers"]
        assert worker["model_ref"] == f"file:{path.with_name(NAMES[0])}"
        for row in client.get("/v1/models/list").json()["models"]:
            removed = client.delete(f"/v1/models/{quote(row['id'], safe='')}").status_code
            assert removed == (409 if row["local_path"].endswith(NAMES[0]) else 204), row["id"]
        (left,) = [path.name for path in models_of(hive).rglob("*.gguf")]
        assert left == NAMES[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks4://127.0.0.1:1080"), ("HTTP_PROXY", "http://proxy:port"), ("REQUESTS_CA_BUNDLE", "/nowhere")],
)
def test_a_variable_of_the_environment_that_is_wrong_costs_one_download(
    start: Callable[..., Daemon], variable: str, value: str
) -> None:
    daemon = start(**{variable: value})
    with daemon.client() as client:
        for _ in range(2):
            name, last = pulled(client)[-1]
            assert (name, last["error"]["code"]) == ("message", "DOWNLOAD_FAILED")
            assert last["error"]["message"].startswith(f"{variable} names ")
        assert client.get("/v1/models/list").json() == {"models": []}
    daemon.signal()
    assert daemon.wait() == (0, "")
