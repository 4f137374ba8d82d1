"""API keys at the routes that clients of OpenAI use, with real daemons and a stand-in worker: what each one opens."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.kit.local_http import LOCAL
from tests.kit.standins import standin
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "builtin:bee-stories"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Once"}], "max_tokens": 10}
NOT_LOCAL = {"Via": "1.1 a-proxy"}
"""Our own user needs no key, but for others."""


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A queen whose workers send three words, and then nothing but signs of life."""
    found = Swarm(tmp_path_factory.mktemp("keys"), RBEE_WORKER_COMMAND=standin("pause"))
    found.is_told = False
    found.start_queen()
    yield found
    found.kill()


def key(swarm: Swarm, name: str, *options: str) -> str:
    made = swarm.run("keys", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def client(swarm: Swarm, **headers: str) -> httpx.Client:
    url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}"
    return httpx.Client(base_url=url, headers=NOT_LOCAL | headers, timeout=PATIENCE, **LOCAL)


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the error of an answer in OpenAI's shape."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


class Stream:
    """A streamed answer: its events, as they come."""

    def __init__(self, swarm: Swarm, api_key: str) -> None:
        self.events: list[Any] = []
        self.is_over = threading.Event()
        self._client = client(swarm, Authorization=f"Bearer {api_key}")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def text(self) -> str:
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    def _read(self) -> None:
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
                assert response.status_code == 200
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        self.events.append(json.loads(line.removeprefix("data: ")))
        except httpx.TransportError:
            self.events.append({"cut": True})
        finally:
            self.is_over.set()

    def close(self) -> None:
        self._client.close()
        self._thread.join(PATIENCE)


def free_slots(swarm: Swarm) -> int:
    return sum(worker["slots_available"] for worker in swarm.workers())


def test_a_key_that_is_revoked_ends_its_answers_at_once_and_no_others(swarm: Swarm) -> None:
    alice, bob = Stream(swarm, key(swarm, "alice")), Stream(swarm, key(swarm, "bob"))
    try:
        for stream in (alice, bob):
            wait_until(lambda stream=stream: stream.text == "Once upon a", "the answer has begun")
        wait_until(lambda: free_slots(swarm) == 2, "two of four slots are taken")
        revoked = swarm.run("keys", "revoke", "alice")
        assert revoked.stderr == "The key alice is revoked; 1 request of it ended.\n"
        assert alice.is_over.wait(PATIENCE)
        error = alice.events[-1]["error"]
        assert (error["code"], error["message"]) == ("invalid_api_key", "the key was revoked while the request ran")
        assert not bob.is_over.is_set()
        wait_until(lambda: free_slots(swarm) == 3, "the worker does no more for it")
        (found,) = [
            one for one in json.loads(swarm.run("requests", "--json").stdout)["requests"] if one["caller"] == "alice"
        ]
        assert found["end"] == "INVALID_API_KEY"
        story = swarm.run("why", found["id"]).stdout
        assert "Ended: INVALID_API_KEY: the key was revoked while the request ran" in story
    finally:
        swarm.run("keys", "revoke", "bob")
        alice.close()
        bob.close()
    assert bob.events[-1]["error"]["code"] == "invalid_api_key"


def test_a_key_for_some_models_opens_and_shows_only_those(swarm: Swarm) -> None:
    other, own = key(swarm, "other", "--models", "hf:o/r"), key(swarm, "own", "--models", MODEL)
    with client(swarm, Authorization=f"Bearer {other}") as asks:
        error = refusal(asks.post("/v1/chat/completions", json=CHAT), 403)
        assert f"the key other is not for the model {MODEL}" in error["message"]
        assert asks.get("/v1/models").json()["data"] == []
        refusal(asks.get(f"/v1/models/{MODEL}"), 403)
        for response in (
            asks.post("/v1/chat/completions", json=CHAT | {"model": "bee-storys"}),
            asks.get("/v1/models/bee-storys"),
        ):
            assert "bee-stories" not in refusal(response, 404)["message"]
    with client(swarm, **{"x-api-key": own}) as asks:
        assert [model["id"] for model in asks.get("/v1/models").json()["data"]] == [MODEL]
        assert asks.get(f"/v1/models/{MODEL}").json()["id"] == MODEL
        assert MODEL in refusal(asks.get("/v1/models/bee-storys"), 404)["message"]
    assert "key other" not in swarm.run("workers", "list").stdout


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "invalid_api_key"),
        ({"Authorization": "Bearer sk-guessed"}, 401, "invalid_api_key"),
        ({"Host": "evil.example"}, 403, "forbidden"),
        ({"Origin": "https://evil.example"}, 403, "forbidden"),
    ],
)
def test_a_refusal_has_the_shape_that_the_client_knows(
    swarm: Swarm, headers: dict[str, str], status: int, code: str
) -> None:
    with client(swarm, **headers) as asks:
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/nowhere"):
            assert refusal(asks.post(path, json=CHAT), status)["code"] == code
        assert refusal(asks.get("/v1/models"), status)["code"] == code
        assert set(asks.get("/v2/status").json()["error"]) >= {"code", "message", "details", "correlation_id"}


def test_a_refusal_is_listed_too(swarm: Swarm) -> None:
    with client(swarm) as asks:
        refusal(asks.post("/v1/chat/completions", json=CHAT), 401)
    with swarm.client() as queen:
        # Those whose worker has yet to say what they took come last.
        listed = queen.get("/v2/requests", params={"lines": 10}).json()["requests"]
        last = [one for one in listed if one["caller"] is None][-1]
    assert (last["caller"], last["status"], last["end"]) == (None, 401, "MISSING_API_KEY")
    assert last["route"] == "POST /v1/chat/completions"


def test_our_own_user_needs_no_key(swarm: Swarm) -> None:
    url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}/v1/models"
    for headers in ({}, {"Authorization": "Bearer sk-anything"}, {"x-api-key": "ollama"}):
        assert httpx.get(url, headers=headers, timeout=PATIENCE, **LOCAL).status_code == 200
