"""A hive that does not reach the hub: what it has itself, and what the user's own cache of the hub has, needs none."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import models
from tests.kit.hub import Hub
from tests.kit.hub_cache import store
from tests.kit.waiting import wait_until
from tests.process.hive.test_models import pulled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Daemon, Daemons

REPOSITORY = "bees/model"
REF = f"hf:{REPOSITORY}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return models.make(tmp_path_factory.mktemp("model") / "model.gguf").read_bytes()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf-cache"


@pytest.fixture
def start(daemons: Daemons, tmp_path: Path, cache: Path) -> Callable[..., Daemon]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    environment = {
        "HF_ENDPOINT": nobody,
        "HF_HUB_CACHE": str(cache),
        "RBEE_HUB_PRIVATE_REDIRECTS": "true",
        "RBEE_PATHS_MODELS_DIR": str(tmp_path / "models"),
        "RBEE_TIMEOUTS_DOWNLOAD_DELAYS": "0.01 0.01",
        "RBEE_WORKER_CONTEXT": "64",
    }
    return lambda **more: daemons.start("hive", **(environment | more))


def outcome(daemon: Daemon, reference: str) -> tuple[dict[str, Any], list[str]]:
    """Pull a model; returns its row, or the error, and what was said."""
    with daemon.client() as client:
        told = pulled(client, reference)
    said = [event["human"] for _, event in told if "human" in event]
    return told[-1][1], said


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (REF, "m.Q4_K_M.gguf"),
        (f"{REF}:Q4_K_M", "m.Q4_K_M.gguf"),
        (f"{REF}:q5_k_m", "m.Q5_K_M.gguf"),
        (f"{REF}/m.Q5_K_M.gguf", "m.Q5_K_M.gguf"),
    ],
)
def test_the_users_cache_is_used(
    start: Callable[..., Daemon], cache: Path, model: bytes, reference: str, expected: str
) -> None:
    paths = [store(cache, REPOSITORY, name, model) for name in ("m.Q4_K_M.gguf", "m.Q5_K_M.gguf")]
    daemon = start()
    row, said = outcome(daemon, reference)
    assert row["local_path"] == str(next(path for path in paths if path.name == expected))
    assert row["sha256"] == paths[0].resolve().name
    (words,) = said
    assert words.startswith("The hub is out of reach (127.0.0.1:")
    assert words.endswith(f"cannot be reached); {expected} is in the Hugging Face cache of this node")
    assert outcome(daemon, reference) == (row, []), "the second time it is in the catalogue"


def test_a_worker_runs_what_the_cache_has(start: Callable[..., Daemon], cache: Path, model: bytes) -> None:
    store(cache, REPOSITORY, "m.Q4_K_M.gguf", model)
    with start().client() as client:
        assert client.post("/v1/workers/spawn", json={"model_ref": REF}).status_code == 200
        wait_until(lambda: [row["state"] for row in client.get("/v1/workers/list").json()["workers"]] == ["idle"])


def test_the_main_branch_comes_first(start: Callable[..., Daemon], cache: Path, model: bytes) -> None:
    store(cache, REPOSITORY, "m.Q4_K_M.gguf", model + b"old", revision="a" * 40)
    main = store(cache, REPOSITORY, "m.Q4_K_M.gguf", model, revision="b" * 40)
    assert outcome(start(), REF)[0]["local_path"] == str(main)


def test_the_only_one_in_the_cache_does_not_stand_for_the_repository_for_good(
    start: Callable[..., Daemon], cache: Path, model: bytes, tmp_path: Path
) -> None:
    """With the hub in reach again, the reference means what the hub's files make it mean."""
    link = store(cache, REPOSITORY, "m.Q5_K_M.gguf", model)
    (tmp_path / "m.Q4_K_M.gguf").write_bytes(model + b"another")
    with Hub() as hub:
        hub.add(REPOSITORY, tmp_path / "m.Q4_K_M.gguf", link)
        hub.refuses = 503
        daemon = start(HF_ENDPOINT=hub.url)
        assert outcome(daemon, REF)[0]["local_path"] == str(link)
        hub.refuses = None
        assert outcome(daemon, REF)[0]["local_path"].endswith("/models/hf/bees/model/m.Q4_K_M.gguf")
        assert hub.sent == len(model) + len(b"another")


def test_an_error_about_a_model_that_the_cache_lacks_lists_what_it_has(
    start: Callable[..., Daemon], cache: Path, model: bytes
) -> None:
    for name in ("m.Q5_K_M.gguf", "m.Q8_0.gguf"):
        store(cache, REPOSITORY, name, model)
    daemon = start()
    for reference in (REF, f"{REF}:Q2_K"):  # one may mean two, the other none
        error, said = outcome(daemon, reference)
        assert (error["error"]["code"], said) == ("DOWNLOAD_FAILED", [])
        assert "cannot be reached, after 3 attempts" in error["error"]["message"]
        assert f"has {REF}/m.Q5_K_M.gguf, {REF}/m.Q8_0.gguf, which needs no hub" in error["error"]["hint"]
    other, _ = outcome(daemon, "hf:bees/other")
    assert other["error"]["code"] == "DOWNLOAD_FAILED"
    assert "models that are on it already need no hub" in other["error"]["hint"]


def test_a_split_model_is_taken_only_whole(start: Callable[..., Daemon], cache: Path, tmp_path: Path) -> None:
    models.make(tmp_path / "m.gguf", tensors_per_file=8)
    *most, last = sorted(tmp_path.glob("m-*.gguf"))
    for part in most:
        store(cache, REPOSITORY, part.name, part.read_bytes())
    daemon = start()
    assert outcome(daemon, REF)[0]["error"]["code"] == "DOWNLOAD_FAILED"
    store(cache, REPOSITORY, last.name, last.read_bytes())
    row, _ = outcome(daemon, REF)
    assert row["local_path"].endswith("/m-00001-of-00003.gguf")
    assert row["size_bytes"] == sum(part.stat().st_size for part in (*most, last))


def test_a_hub_that_is_not_to_be_asked_is_not(
    start: Callable[..., Daemon], cache: Path, model: bytes, tmp_path: Path
) -> None:
    link = store(cache, REPOSITORY, "m.Q4_K_M.gguf", model)
    (tmp_path / "other.gguf").write_bytes(model)
    with Hub() as hub:
        hub.add(REPOSITORY, link)
        hub.add("bees/other", tmp_path / "other.gguf")
        daemon = start(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
        row, said = outcome(daemon, REF)
        assert (row["local_path"], "(HF_HUB_OFFLINE is set)" in said[0]) == (str(link), True)
        error, said = outcome(daemon, "hf:bees/other")
        assert (error["error"]["code"], said) == ("DOWNLOAD_FAILED", [])
        assert "not on this node, and the hub is not asked: HF_HUB_OFFLINE is set" in error["error"]["message"]
        assert hub.asked == []


def test_what_is_in_the_catalogue_needs_no_hub(start: Callable[..., Daemon], tmp_path: Path, model: bytes) -> None:
    (tmp_path / "m.Q4_K_M.gguf").write_bytes(model)
    with Hub() as hub:
        hub.add(REPOSITORY, tmp_path / "m.Q4_K_M.gguf")
        daemon = start(HF_ENDPOINT=hub.url)
        outcome(daemon, REF)
        daemon.signal()
        daemon.wait()
    daemon = start()
    row, said = outcome(daemon, REF)
    assert (row["id"], said) == ("m.Q4_K_M", [])
    with daemon.client() as client:
        assert client.post("/v1/workers/spawn", json={"model_ref": REF}).status_code == 200
