"""Models that do not fit together, asked in turn: idle workers make room, those with requests never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kit.models import make
from tests.kit.standins import standin
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.conftest import Daemons

CHAT = "/v1/chat/completions"


def test_the_idle_one_of_two_makes_room_for_a_third(daemons: Daemons, tmp_path: Path) -> None:
    small = [f"file:{make(tmp_path / f'{name}.gguf', width=1024)}" for name in "abc"]
    large = f"file:{make(tmp_path / 'large.gguf', width=1024, layers=4, context=16_384)}"
    queen = daemons.start(
        "queen", RBEE_WORKER_COMMAND=standin("pause"), RBEE_HIVE_MAX_MEMORY="200", RBEE_WORKER_CONTEXT="16384"
    )
    with queen.client() as client:

        def body(model: str, tokens: int, *, stream: bool = False) -> dict[str, object]:
            user = {"role": "user", "content": "Hi"}
            return {"model": model, "messages": [user], "max_tokens": tokens, "stream": stream}

        def ask(model: str) -> httpx.Response:
            return client.post(CHAT, json=body(model, 2), timeout=PATIENCE)

        assert ask(small[0]).status_code == 200
        with client.stream("POST", CHAT, json=body(small[1], 10, stream=True), timeout=PATIENCE) as held:
            lines = held.iter_lines()
            assert next(line for line in lines if "Once" in line)
            response = ask(small[2])
            assert response.status_code == 200, response.text
            workers = client.get("/v2/workers/list").json()["workers"]
            assert {worker["model_ref"]: worker["state"] for worker in workers} == {small[1]: "busy", small[2]: "idle"}
            story = client.get(f"/v2/requests/{response.headers['x-request-id']}").json()
            told = [step["human"] for step in story["steps"] if "makes room" in step["human"]]
            assert len(told) == 1
            assert told[0].startswith(f"{small[0]} makes room for {small[2]}: idle for ")
            seconds = told[0].partition(": idle for ")[2].split()[0]
            assert 0 <= int(seconds) < 60
            assert next(line for line in lines if " a" in line), "the one with a request goes on"
        refused = client.post(CHAT, json=body(large, 2), timeout=PATIENCE)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "false")
        assert "MB of RAM, and " in refused.json()["error"]["message"]
        assert len(client.get("/v2/workers/list").json()["workers"]) == 2, "none has left in vain"
