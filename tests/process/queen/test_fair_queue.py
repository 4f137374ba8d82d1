"""The line for slots at a real queen, before a stand-in worker with four: who is served when, and who leaves it."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.kit.local_http import LOCAL
from tests.kit.standins import standin
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 4
MANY = 14
MAX_WAITING = 12
"""More than wait at once: a slot that is not taken up at once, on a busy machine, sends one back into the line."""
TOKENS = 12
PACE = 0.1
"""Seconds for a token: a request takes 1.2 s."""
CHAT = "/v1/chat/completions"
MODEL = "builtin:bee-stories"


class Asked:
    """One request in a thread of its own, and its answer."""

    def __init__(self, client: httpx.Client, tokens: int) -> None:
        self._client = client
        self._body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Once"}],
            "max_tokens": tokens,
            "stream": True,
        }
        self.response: httpx.Response | None = None
        self.text = ""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._client.stream("POST", CHAT, json=self._body) as self.response:
                for line in self.response.iter_lines():
                    self.text += line
        except (httpx.TransportError, RuntimeError):
            pass


class Line:
    """The queue of one queen, whose callers have keys."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}"
        self.clients = {name: self._client(name) for name in ("many", "one", "gone", "more")}
        self.asked: list[Asked] = []

    def _client(self, name: str) -> httpx.Client:
        with self.swarm.client() as client:
            key = client.post("/v2/keys", json={"name": name}).json()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, **LOCAL)

    def ask(self, caller: str, tokens: int = TOKENS) -> Asked:
        self.asked.append(Asked(self.clients[caller], tokens))
        return self.asked[-1]

    def requests(self, caller: str) -> list[dict[str, Any]]:
        with self.swarm.client() as client:
            found = client.get("/v2/requests", params={"lines": 100}).json()["requests"]
        return [one for one in found if one["caller"] == caller]

    def running(self, caller: str) -> list[dict[str, Any]]:
        return [one for one in self.requests(caller) if one["end"] is None]

    def wait_for(self, caller: str, *, placed: int, waiting: int) -> None:
        """Return once so many requests of a caller are at a worker, and so many in line."""

        def is_so() -> bool:
            running = self.running(caller)
            at_worker = sum(one["queue_ms"] is not None for one in running)
            return (at_worker, len(running) - at_worker) == (placed, waiting)

        wait_until(is_so, f"{placed} of {caller} are served, and {waiting} wait")

    def join(self) -> None:
        for asked in self.asked:
            asked.thread.join(PATIENCE)
        self.asked.clear()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    worker = standin("well", "--pace", str(PACE))
    swarm = Swarm(tmp_path_factory.mktemp("line"), RBEE_WORKER_COMMAND=worker, RBEE_QUEEN_MAX_WAITING=str(MAX_WAITING))
    swarm.start_queen()
    found = Line(swarm)
    found.ask("more", 1)
    found.join()
    yield found
    for client in found.clients.values():
        client.close()
    swarm.kill()


def placed_at(request: dict[str, Any]) -> float:
    return float(request["began_unix"] + request["queue_ms"] / 1e3)


def test_one_request_waits_for_no_more_than_one_of_another_callers_many(line: Line) -> None:
    for _ in range(MANY):
        line.ask("many")
    wait_until(lambda: len(line.requests("many")) == MANY, "all of them have come")
    line.ask("one")
    line.join()
    (one,), many = line.requests("one"), line.requests("many")
    assert {request["end"] for request in many} == {"length"}
    waiting = [placed_at(request) for request in many if placed_at(request) > one["began_unix"]]
    assert len(waiting) > SLOTS, "they had not all been served before it came"
    assert sum(at < placed_at(one) for at in waiting) <= 1, "one slot may be on its way to another as it comes"
    longest = max(request["total_ms"] - request["queue_ms"] for request in many)
    assert one["queue_ms"] <= longest + 100, "the news that a slot is free takes its time on a busy machine"


def test_a_full_line_is_told_before_a_stream_begins_and_has_a_place_for_another_caller(line: Line) -> None:
    task = {"model": MODEL, "prompt": "x", "relay": True, "wait_s": 60, "max_tokens": 1000}
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 400}
    headers = {"Accept": "text/event-stream"}
    with line.swarm.client() as client, line.swarm.client() as holding:

        def hold() -> None:
            with suppress(httpx.TransportError, RuntimeError):
                while "ALL_SLOTS_BUSY" in holding.post("/v2/tasks", json=task, headers=headers).text:
                    pass  # it came back into the line, which others had filled, or many came in one moment

        threads = [threading.Thread(target=hold) for _ in range(SLOTS + MAX_WAITING)]
        for thread in threads:
            thread.start()
        line.wait_for("token", placed=SLOTS, waiting=MAX_WAITING)
        refused = client.post("/v2/tasks", json=task, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "ALL_SLOTS_BUSY")
        assert refused.json()["error"]["details"]["waiting"] == MAX_WAITING
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        for stream in (True, False):
            refused = client.post(CHAT, json=chat | {"stream": stream})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
        line.ask("one", 1)
        line.wait_for("one", placed=0, waiting=1)
        holding.close()
    line.join()
    for thread in threads:
        thread.join(PATIENCE)
    assert line.requests("one")[-1]["end"] == "length"


def test_who_leaves_is_gone_from_the_line_a_revoked_key_too_and_a_dead_worker_is_replaced(line: Line) -> None:
    for _ in range(SLOTS):
        line.ask("many", 400)
    line.wait_for("many", placed=SLOTS, waiting=0)
    line.ask("more")
    revoked, last = line.ask("gone"), line.ask("one")
    for caller in ("more", "gone", "one"):
        line.wait_for(caller, placed=0, waiting=1)
    time.sleep(0.1)
    line.clients["more"].close()
    wait_until(lambda: not line.running("more"), "who has left does not wait")
    assert line.requests("more")[-1]["end"] == "CANCELLED"
    with line.swarm.client() as client:
        assert client.delete("/v2/keys/gone").json()["ended"] == 1
    revoked.thread.join(PATIENCE)
    assert revoked.response is not None
    assert "the key was revoked while the request ran" in (revoked.text or revoked.response.text)
    assert line.requests("gone")[-1]["end"] == "INVALID_API_KEY"
    line.wait_for("one", placed=0, waiting=1)
    (worker,) = line.swarm.listed() or []
    os.kill(worker["pid"], signal.SIGKILL)
    last.thread.join(PATIENCE)
    assert last.text.endswith("[DONE]"), "it has waited, and has its answer from the next worker"
    assert line.requests("one")[-1]["end"] == "length"
    line.join()
    assert {one["end"] for one in line.requests("many")[-SLOTS:]} == {"WORKER_FAILED"}, "their answers had begun"
