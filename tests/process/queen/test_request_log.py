"""The line that a request leaves in the queen's log, with what its worker says of it, and how one gets to see it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

from tests.kit.local_http import LOCAL
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "Honeycomb"


def test_each_request_leaves_a_line_that_logs_shows(tmp_path: Path) -> None:
    swarm = Swarm(tmp_path)
    swarm.start_queen()
    try:
        done = swarm.run("infer", "--prompt", PROMPT, "--max-tokens", "5")
        assert done.returncode == 0, done.stderr
        with swarm.client() as queen:
            task = {"prompt": PROMPT, "max_tokens": 3, "relay": True}
            queen.post("/v2/tasks", json=task, headers={"Accept": "text/event-stream"}).raise_for_status()
        url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}/v2/tasks"
        httpx.post(url, json=task, headers={"Authorization": "Bearer guessed-by-a-stranger"}, **LOCAL)

        def lines() -> list[str]:
            shown = swarm.run("logs").stdout
            return [line for line in shown.splitlines() if "  queen " in line and 'route="POST /v2/tasks"' in line]

        wait_until(lambda: len(lines()) == 3, "each request has left its line")
        direct, relayed, refused = sorted(lines(), key=lambda line: ("end=INVALID" in line, "relayed=yes" in line))
        for line, tokens in ((direct, 5), (relayed, 3)):
            assert re.search(rf" model=builtin:bee-stories node=local worker=\S+ .* tokens={tokens} ", line), line
            assert re.search(
                r" prompt_tokens=[1-9]\d* .* queue_ms=\d+ first_token_ms=\d+ total_ms=\d+ end=length$", line
            )
        assert re.search(r" address=127\.0\.0\.1 .* status=401 .* end=INVALID_API_KEY$", refused)
        everything = (swarm.home / "logs" / "queen.log").read_text()
        token = (swarm.home / "token").read_text().strip()
        assert not any(text in everything for text in (PROMPT, token, "guessed", "rbee_w_"))
        sources = {line[25:40].strip() for line in swarm.run("logs", "--lines", "1000").stdout.splitlines()}
        assert {"queen", "hive"} < sources
        swarm.end()
    finally:
        swarm.kill()
