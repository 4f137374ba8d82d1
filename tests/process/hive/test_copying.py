"""A hive that copies a model from other hives, and what becomes of that when one of them fails."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters import tokens
from tests.kit import models
from tests.kit.hub import Hub
from tests.kit.proxy import Proxy
from tests.kit.waiting import PATIENCE, wait_until
from tests.process.hive.test_models import FILE, REF, digest, events_of, pulled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.conftest import Daemon, Daemons

REPOSITORY = "bees/model"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = models.make(tmp_path_factory.mktemp("model") / FILE, width=512)
    with path.open("ab") as file:
        file.write(os.urandom(3_000_000))  # what follows the last tensor is nobody's
    return path


@pytest.fixture
def size(model: Path) -> int:
    return model.stat().st_size


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPOSITORY, model)
        yield hub


class Node:
    """A hive called `name` with a folder of models of its own."""

    def __init__(self, name: str, folder: Path, daemon: Daemon) -> None:
        self.name = name
        self.models = folder / "models" / "hf" / REPOSITORY
        self.daemon = daemon

    def client(self) -> httpx.Client:
        return self.daemon.client()

    def pull(self, reference: str = REF) -> list[tuple[str, dict[str, Any]]]:
        with self.client() as client:
            return pulled(client, reference)

    def source(self, reference: str = REF, url: str | None = None) -> dict[str, Any]:
        """Return it as one that others may copy from."""
        with self.client() as client:
            offers = client.get("/v1/models/files", params={"model_ref": reference}).json()
        return {"node": self.name, "url": url or self.daemon.url, "models": offers["models"]}

    def copy(self, *sources: dict[str, Any], reference: str = REF) -> list[tuple[str, dict[str, Any]]]:
        """Have it pull the model, copied from `sources`; returns what it tells."""
        request = {"model_ref": reference, "sources": list(sources)}
        accept = {"Accept": "text/event-stream"}
        with (
            self.client() as client,
            client.stream("POST", "/v1/models/download", json=request, headers=accept) as answer,
        ):
            return list(events_of(answer))


Start = Callable[..., Node]


@pytest.fixture
def start(hub: Hub, daemons: Daemons, tmp_path: Path) -> Start:
    """Start a hive; all of them have one token."""

    def begin(name: str, **environment: str) -> Node:
        folder = tmp_path / name
        settings = {
            "HF_ENDPOINT": hub.url,
            "RBEE_HUB_PRIVATE_REDIRECTS": "true",
            "RBEE_PATHS_MODELS_DIR": str(folder / "models"),
            "RBEE_AUTH_TOKEN_FILE": str(tmp_path / "rbee" / "token"),
            "RBEE_TIMEOUTS_DOWNLOAD_DELAYS": "0.01 0.01 0.01 0.01 0.01",
        }
        daemon = daemons.start("hive", home=folder / "home", **(settings | environment))
        daemon.home = tmp_path / "rbee"  # where the token is
        return Node(name, folder, daemon)

    return begin


@pytest.fixture
def attic(start: Start) -> Node:
    """A node that has the model."""
    node = start("attic")
    assert node.pull()[-1][0] == "model"
    return node


def said(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [event["human"] for name, event in events if name == "narration"]


@contextmanager
def half_way_to(node: Node, size: int) -> Iterator[Proxy]:
    """Give a way to the node on which the second half of what it sends is held back."""
    host, _, port = node.daemon.url.removeprefix("http://").rpartition(":")
    with Proxy((host, int(port))) as proxy:
        proxy.hold("answers", after=size // 2)
        yield proxy


@contextmanager
def copying(cellar: Node, *sources: dict[str, Any], size: int) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Have it copy the model; the block begins when a third is there, and what it tells is there after the block."""
    events: list[tuple[str, dict[str, Any]]] = []
    thread = threading.Thread(target=lambda: events.extend(cellar.copy(*sources)))
    thread.start()
    wait_for_a_third(cellar, size)
    yield events
    thread.join(PATIENCE)


def wait_for_a_third(cellar: Node, size: int) -> None:
    part = cellar.models / f"{FILE}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0.3 * size, "a third of the model is there")


def test_a_model_that_another_node_has_is_copied_from_there(
    start: Start, attic: Node, hub: Hub, model: Path, size: int
) -> None:
    cellar = start("cellar", HTTP_PROXY=NOBODY, NO_PROXY=hub.url.removeprefix("http://"))
    events = cellar.copy(attic.source())
    first, last = said(events)
    assert first == f"Copying {REF} (Q4_K_M, {size / 1e6:.1f} MB) from attic"
    assert last.startswith(f"Copied {REF} in ")
    progress = [event for name, event in events if name == "progress"]
    assert [event["stage"] for event in progress[-2:]] == ["verifying", "complete"]
    assert progress[-3]["bytes_downloaded"] == progress[-3]["bytes_total"] == size
    assert [path.read_bytes() == model.read_bytes() for path in cellar.models.iterdir()] == [True]
    row = events[-1][1]
    assert (row["id"], row["model_ref"], row["sha256"]) == ("model.Q4_K_M", f"{REF}:Q4_K_M", digest(model))
    assert hub.sent == size, "it was fetched once"
    assert cellar.source()["models"] == attic.source()["models"], "and others may copy it on"


def test_a_worker_of_a_model_that_is_copied(start: Start, attic: Node, hub: Hub, size: int) -> None:
    cellar = start("cellar", RBEE_WORKER_CONTEXT="64")
    with cellar.client() as client:
        request = {"model_ref": f"{REF}:Q4_K_M", "sources": [attic.source()]}
        assert client.post("/v1/workers/spawn", json=request).status_code == 200
    assert hub.sent == size


def test_a_source_that_is_killed_half_way_leaves_the_rest_to_the_hub(
    start: Start, attic: Node, hub: Hub, model: Path, size: int
) -> None:
    cellar = start("cellar")
    with (
        half_way_to(attic, size) as proxy,
        copying(cellar, attic.source(url=proxy.url), size=size) as events,
    ):
        attic.daemon.signal(signal.SIGKILL)
        proxy.order("cut")  # what was on its way is lost too
    rest = hub.content()[-1]
    begins = int(rest.headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0.3 * size < begins < size
    assert hub.sent - size == rest.sent == size - begins, "the bytes of both make the file"
    assert "If-Range" not in rest.headers, "the hub may know the same bytes by another validator"
    assert [path.read_bytes() == model.read_bytes() for path in cellar.models.iterdir()] == [True]
    _, failed, going_on, last = said(events)
    assert failed.startswith(f"Copying from attic failed: {FILE} could not be fetched: ")
    assert going_on == f"Downloading the rest of {REF} from {hub.url.removeprefix('http://')}"
    assert last.startswith("Downloaded ")
    steps = [event["bytes_downloaded"] for _, event in events if event.get("stage") == "downloading"]
    assert steps == sorted(steps), "the bar never goes back"


def test_a_source_that_stalls_leaves_the_rest_to_the_hub_long_before_the_hub_would_be_given_up(
    start: Start, attic: Node, hub: Hub, model: Path, size: int
) -> None:
    cellar = start("cellar", RBEE_TIMEOUTS_COPY_STALL="1")
    with (
        half_way_to(attic, size) as proxy,
        copying(cellar, attic.source(url=proxy.url), size=size) as events,
    ):
        attic.daemon.signal(signal.SIGSTOP)
    attic.daemon.signal(signal.SIGCONT)
    assert events[-1][0] == "model"
    assert "sent nothing for too long" in said(events)[1]
    assert [path.read_bytes() == model.read_bytes() for path in cellar.models.iterdir()] == [True]
    assert size < hub.sent < 2 * size


def test_a_second_source_goes_on_where_the_first_has_ended(start: Start, attic: Node, hub: Hub, size: int) -> None:
    barn, cellar = start("barn"), start("cellar")
    barn.copy(attic.source())
    with (
        half_way_to(attic, size) as proxy,
        copying(cellar, attic.source(url=proxy.url), barn.source(), size=size) as events,
    ):
        attic.daemon.signal(signal.SIGKILL)
        proxy.order("cut")
    assert said(events)[2] == f"Copying the rest of {REF} from barn"
    assert events[-1][0] == "model"
    assert hub.sent == size


def test_other_bytes_than_the_hub_announces_are_not_taken(
    start: Start, attic: Node, hub: Hub, model: Path, size: int
) -> None:
    with (attic.models / FILE).open("r+b") as file:
        file.seek(size - 1)
        file.write(bytes([model.read_bytes()[-1] ^ 0xFF]))
    cellar = start("cellar")
    events = cellar.copy(attic.source())
    assert said(events)[1] == f"Copying from attic failed: it sent other bytes than {FILE} has; they were removed"
    assert said(events)[2].startswith(f"Downloading {REF} (Q4_K_M, ")
    assert [path.read_bytes() == model.read_bytes() for path in cellar.models.iterdir()] == [True]
    assert hub.sent == 2 * size


def test_a_model_that_the_hub_has_changed_is_the_hubs(
    start: Start, attic: Node, hub: Hub, model: Path, tmp_path: Path
) -> None:
    changed = tmp_path / FILE
    changed.write_bytes(model.read_bytes() + b"more")
    hub.add(REPOSITORY, changed)
    cellar = start("cellar")
    events = cellar.copy(attic.source())
    assert not any("Copying" in line for line in said(events))
    assert events[-1][1]["sha256"] == digest(changed)


@pytest.mark.parametrize("hub_says", ["nothing", "no such model", "not for you"])
def test_a_model_that_the_hub_does_not_give_is_copied_all_the_same(
    hub_says: str, start: Start, attic: Node, hub: Hub, size: int
) -> None:
    if hub_says == "nothing":
        cellar = start("cellar", HF_ENDPOINT=NOBODY)
    else:
        cellar = start("cellar")
        hub.refuses = 404 if hub_says == "no such model" else 401
    events = cellar.copy(attic.source())
    assert said(events)[0].startswith(f"The hub does not give {REF} (")
    assert (events[-1][0], events[-1][1]["model_ref"]) == ("model", f"{REF}:Q4_K_M")
    assert hub.sent == size


def test_without_a_hub_only_what_the_reference_means_is_copied(start: Start, attic: Node, hub: Hub) -> None:
    cellar = start("cellar", HF_ENDPOINT=NOBODY)
    other = f"{REF}:Q8_0"
    assert cellar.copy(attic.source(other), reference=other)[-1][1]["error"]["code"] == "DOWNLOAD_FAILED"
    assert cellar.copy(attic.source(), reference=f"{REF}/{FILE}")[-1][0] == "model"


def test_where_neither_hub_nor_node_gives_it_the_error_is_that_of_the_hub(start: Start, attic: Node) -> None:
    cellar = start("cellar", HF_ENDPOINT=NOBODY)
    source = attic.source()
    attic.daemon.signal(signal.SIGKILL)
    attic.daemon.wait()
    events = cellar.copy(source)
    assert "Copying from attic failed: " in said(events)[2]
    error = events[-1][1]["error"]
    assert error["code"] == "DOWNLOAD_FAILED"
    assert "the hub could not be asked" in error["message"]
    assert error["details"]["attempts"] == 6


def test_the_files_of_a_split_model_are_copied_without_a_hub(
    start: Start, hub: Hub, tmp_path: Path, model: Path, size: int
) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, part in enumerate(parts):
        shutil.copy(model, part)
        with part.open("ab") as file:
            file.write(bytes([number]))
    hub.add("bees/big", *parts)
    attic, cellar = start("attic"), start("cellar", HF_ENDPOINT=NOBODY)
    reference = "hf:bees/big"
    attic.pull(reference)
    events = cellar.copy(attic.source(reference), reference=reference)
    assert events[-1][1]["size_bytes"] == 2 * size + 2
    assert sum(line.startswith("Copying ") for line in said(events)) == 1
    folder = cellar.models.with_name("big")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {p.name: p.read_bytes() for p in parts}
    assert hub.sent == 2 * size + 2


def test_a_hive_that_is_killed_while_it_copies_leaves_what_the_next_one_goes_on_with(
    start: Start, attic: Node, hub: Hub, size: int
) -> None:
    cellar = start("cellar")
    part = cellar.models / f"{FILE}.part"
    with half_way_to(attic, size) as proxy, cellar.client() as client:
        client.post("/v1/models/download", json={"model_ref": REF, "sources": [attic.source(url=proxy.url)]})
        wait_for_a_third(cellar, size)
        cellar.daemon.signal(signal.SIGKILL)
        cellar.daemon.wait()
    there = part.stat().st_size
    assert there < size
    cellar = start("cellar")
    assert cellar.pull()[-1][0] == "model"
    assert hub.content()[-1].headers["Range"] == f"bytes={there}-"
    assert hub.sent - size == size - there


def test_giving_up_ends_the_copying(start: Start, attic: Node, hub: Hub, size: int) -> None:
    cellar = start("cellar")
    with half_way_to(attic, size) as proxy, cellar.client() as client:
        request = {"model_ref": REF, "sources": [attic.source(url=proxy.url)]}
        begun = client.post("/v1/models/download", json=request).json()["download_id"]
        wait_for_a_third(cellar, size)
        assert client.delete(f"/v1/models/download/{begun}").status_code == 204
        assert cellar.copy(attic.source())[-1][0] == "model"
    assert hub.sent == size, "nor does the hub take over"


class Stranger(ThreadingHTTPServer):
    """Somebody else at the address of a node: keeps what is asked of it, and sends everybody elsewhere."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Redirect)


class _Redirect(BaseHTTPRequestHandler):
    server: Stranger

    def log_message(self, *_: object) -> None:
        """Nothing goes to stderr."""

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.path}\n{self.headers}")
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_stranger_at_a_nodes_address_learns_no_token_and_leads_nowhere(
    start: Start, attic: Node, hub: Hub, model: Path, size: int
) -> None:
    cellar = start("cellar")
    stranger = Stranger()
    threading.Thread(target=stranger.serve_forever, args=(0.05,), daemon=True).start()
    try:
        events = cellar.copy(attic.source(url=f"http://127.0.0.1:{stranger.server_port}"))
    finally:
        stranger.shutdown()
        stranger.server_close()
    (asked,) = stranger.asked
    assert attic.daemon.token not in asked
    assert f"Bearer {tokens.content_key(attic.daemon.token, digest(model))}" in asked
    assert said(events)[1] == f"Copying from attic failed: 127.0.0.1:{stranger.server_port} answered HTTP 302"
    assert events[-1][0] == "model"
    assert hub.sent == 2 * size


def test_a_file_that_a_user_has_sent_to_one_node_is_copied_by_another(start: Start, model: Path, size: int) -> None:
    attic, cellar = start("attic"), start("cellar")
    reference, sha256 = "file:/home/ann/mine.gguf", digest(model)
    file = {"name": "mine.gguf", "size_bytes": size, "modified_ns": 1, "sha256": sha256}
    with attic.client() as client:
        for _ in range(2):
            state = client.post("/v1/models/push", json={"model_ref": reference, "files": [file]}).json()
            for missing in state["missing"]:
                data = model.read_bytes()[missing["offset"] :]
                client.put(f"/v1/models/push/{sha256}", params={"offset": missing["offset"]}, content=data)
        assert state["model"]["id"] == "mine"
    events = cellar.copy(attic.source(reference), reference=reference)
    assert "from attic" in said(events)[0]
    assert (events[-1][1]["model_ref"], events[-1][1]["sha256"]) == (reference, sha256)
    assert (cellar.models.parents[2] / "file/home/ann/mine.gguf").read_bytes() == model.read_bytes()
    with cellar.client() as client:
        refused = client.post("/v1/models/download", json={"model_ref": "file:/home/ann/none.gguf"}).json()
        assert refused["error"]["code"] == "INVALID_REQUEST"
