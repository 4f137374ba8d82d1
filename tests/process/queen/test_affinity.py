"""A conversation goes to the worker that has read its beginning: a real queen and hive, two workers of one model."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.kit.standins import standin
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.conftest import Daemons

CHAT = "/v1/chat/completions"
MODEL = "builtin:bee-stories"
KNOWN = re.compile(r"; it has read the first (\d+) of about (\d+) characters before$", re.MULTILINE)


def user(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"The {number} bees. " + "They found the honey. " * 31 + "More!"}


class Talk:
    """A conversation, and where each of its turns was answered."""

    def __init__(self, client: httpx.Client, number: int, **headers: str) -> None:
        self.client = client
        self.messages = [user(number)]
        self.headers = headers

    def turn(self, **body: Any) -> tuple[str, str]:
        """Return the worker, and the request's story; it has ended there, as its hive shows."""
        before = len(idle(self.client))
        body = {"model": MODEL, "messages": self.messages, "max_tokens": 10, **body}
        response = self.client.post(CHAT, json=body, headers=self.headers).raise_for_status()
        self.messages += [response.json()["choices"][0]["message"], user(len(self.messages))]
        story = self.client.get(f"/v2/requests/{response.headers['x-request-id']}").json()
        wait_idle(self.client, before)
        return story["request"]["worker"], "\n".join(step["human"] for step in story["steps"])


def idle(client: httpx.Client) -> set[str]:
    return {row["worker_id"] for row in client.get("/v2/workers/list").json()["workers"] if row["state"] == "idle"}


def wait_idle(client: httpx.Client, count: int) -> None:
    wait_until(lambda: len(idle(client)) == count, f"{count} of the workers have nothing to do")


@contextmanager
def one_busy(client: httpx.Client) -> Iterator[str]:
    """Have one worker write for somebody; gives the other one."""
    body = {"model": MODEL, "messages": [user(0)], "max_tokens": 1000, "stream": True}
    with client.stream("POST", CHAT, json=body):
        wait_idle(client, 1)
        yield idle(client).pop()
    wait_idle(client, 2)


def test_each_conversation_stays_with_its_worker(daemons: Daemons) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin("well", "--pace", "0.02"))
    queen = daemons.start("queen")
    with queen.client() as client:
        for _ in range(2):
            client.post(f"{hive.url}/v1/workers/spawn", json={"model_ref": MODEL}).raise_for_status()
        wait_idle(client, 2)
        first, second = Talk(client, 1), Talk(client, 2)
        own, keyed = Talk(client, 3, **{"X-Session-Id": "mine"}), Talk(client, 4)
        usual, told = first.turn()
        assert not KNOWN.search(told)
        with one_busy(client) as other:
            assert other != usual
            assert [second.turn()[0], own.turn()[0], keyed.turn(prompt_cache_key="k")[0]] == [other] * 3
        for turn in range(2):
            for talk, worker in ((first, usual), (second, other), (own, other)):
                found, told = talk.turn()
                assert found == worker
                read, length = KNOWN.findall(told)[0]
                assert int(read) > 700 + 700 * turn
                assert int(read) < int(length) < int(read) + 800
        assert Talk(client, 5).turn()[0] == usual, "nothing is known of it, so all is as it was"
        assert Talk(client, 6, **{"X-Session-Id": "mine"}).turn()[0] == other
        assert Talk(client, 7).turn(prompt_cache_key="k")[0] == other

        client.post("/v2/workers/shutdown", json={"worker_id": other}).raise_for_status()
        wait_idle(client, 1)
        found, told = second.turn()
        assert (found, KNOWN.findall(told)) == (usual, [])
