"""The event stream of a hive: its workers and downloads as they change, and why a worker has ended."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx_sse

from tests.kit.hub import Fault, Hub
from tests.kit.standins import standin
from tests.kit.streams import events_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

SPAWN = {"model_ref": "builtin:bee-stories"}


def start(daemons: Any, behaviour: str = "well") -> Any:
    return daemons.start("hive", RBEE_WORKER_COMMAND=standin(behaviour))


def events(client: httpx.Client) -> Iterator[tuple[str, Any]]:
    with httpx_sse.connect_sse(client, "GET", "/v1/events") as source:
        yield from events_of(source.response)


def test_what_is_comes_first_and_then_each_change(daemons: Any) -> None:
    hive = start(daemons)
    with hive.client() as client, hive.client() as other:
        told = events(client)
        assert next(told) == ("state", {"workers": []})
        reply = other.post("/v1/workers/spawn", json=SPAWN).json()
        idle = until(told, "worker", id=reply["worker_id"], state="idle")
        late = events(other)
        name, state = next(late)
        (row,) = state["workers"]
        # The worker may have published its state once more meanwhile.
        assert row.pop("last_health_at") >= idle.pop("last_health_at")
        assert (name, row) == ("state", idle)
        assert state.keys() == {"workers"}
        late.close()
        other.delete(f"/v1/workers/{reply['worker_id']}")
        assert until(told, "gone") == {"id": reply["worker_id"]}
        told.close()
    hive.signal()
    assert hive.wait()[0] == 0


def test_downloads_are_published_once_a_second_and_when_they_begin_and_end(daemons: Any, tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF" + bytes(999_996))
    with Hub() as hub:
        hub.add("bees/m", model)
        hub.fault = Fault(rate=400_000)
        models_dir = str(tmp_path / "models")
        hive = daemons.start(
            "hive", HF_ENDPOINT=hub.url, RBEE_HUB_PRIVATE_REDIRECTS="true", RBEE_PATHS_MODELS_DIR=models_dir
        )
        with hive.client() as client, hive.client() as other, hive.client() as third:
            told = events(client)
            assert next(told) == ("state", {"workers": []})
            begun = other.post("/v1/models/download", json={"model_ref": "hf:bees/m"}).json()
            seen = [(time.monotonic(), until(told, "download", **begun))]
            until(told, "download", stage="downloading")
            late = events(third)
            assert next(late) == ("state", {"workers": []})
            assert until(late, "download")["bytes_total"] == 1_000_000, "what runs is told to who comes late"
            late.close()
            while seen[-1][1]["stage"] not in ("complete", "error"):
                seen.append((time.monotonic(), until(told, "download", **begun)))
            told.close()
            late = events(third)
            assert next(late) == ("state", {"workers": []})
            failing = other.post("/v1/models/download", json={"model_ref": "hf:bees/none"}).json()
            known = until(late, "download")
            assert known["download_id"] == failing["download_id"], "what had ended is not told"
            assert until(late, "download", stage="error")["code"] == "MODEL_NOT_FOUND"
            late.close()
    assert [state["stage"] for _, state in seen][:: len(seen) - 1] == ["asking", "complete"]
    sizes = [state["bytes_downloaded"] for _, state in seen]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 1_000_000
    assert 3 <= len(seen) <= 2 + (seen[-1][0] - seen[0][0]) / 0.9
    assert models_dir not in json.dumps([state for _, state in seen])


def test_the_end_of_a_worker_is_published_with_the_end_of_its_log(daemons: Any) -> None:
    hive = start(daemons)
    with hive.client() as client, hive.client() as other:
        told = events(client)
        reply = other.post("/v1/workers/spawn", json=SPAWN).json()
        row = until(told, "worker", id=reply["worker_id"], state="idle")
        log = hive.home / "logs" / f"worker-{row['id']}.log"
        log.write_text("".join(f"line {number} \x1b[31m\n" for number in range(30)))
        before = time.time()
        os.kill(row["pid"], signal.SIGSEGV)
        ended = until(told, "gone", id=row["id"])["ended"]
        told.close()
        assert other.get("/v1/workers/list").json() == {"workers": [], "ended": [ended]}
    assert ended["reason"] == "SIGSEGV (a memory fault in native code)"
    assert (ended["pid"], ended["log"]) == (row["pid"], log.name)
    assert before <= ended["ended_at"] <= time.time()
    assert len(ended["last_lines"]) == 20
    assert ended["last_lines"][-1].startswith("line 29")
    assert "\x1b" not in "".join(ended["last_lines"])
    hive.signal()
    assert hive.wait()[0] == 0
