"""`rbee keys`, `rbee requests`, `rbee why` and `rbee up` with a real queen: what they print, and what outlasts it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.kit.local_http import LOCAL
from tests.kit.swarm import Swarm
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "Honeycomb"


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path)
    found.is_told = False
    yield found
    found.kill()


def as_json(swarm: Swarm, *arguments: str) -> Any:
    done = swarm.run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def status_of(swarm: Swarm, path: str, **headers: str) -> int:
    url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}{path}"
    return httpx.get(url, headers=headers, timeout=PATIENCE, **LOCAL).status_code


def test_a_key_is_made_listed_and_revoked(swarm: Swarm) -> None:
    swarm.start_queen()
    made = swarm.run("keys", "create", "alice", "--models", "small,hf:o/r", "--models", "big", "--expires", "30d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"rbee_k_[\w-]{43}", key)
    assert "The key alice, shown this once: for big, hf:o/r, small, until 20" in made.stderr
    assert f"Base URL: http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}/v1 on this machine; for others, " in made.stderr
    (listed,) = as_json(swarm, "keys", "list")["keys"]
    assert (listed["name"], listed["shown"], listed["models"]) == ("alice", key[:11], ["big", "hf:o/r", "small"])
    assert listed["expires_unix"] == pytest.approx(listed["created_unix"] + 30 * 86_400)
    shown = swarm.run("keys", "list").stdout
    assert f"alice  {key[:11]}…" in shown
    assert key not in shown

    # A proxy's header, because our own user needs no key here; the path is one that there is not.
    assert status_of(swarm, "/v1/nowhere", Via="x") == 401
    assert status_of(swarm, "/v1/nowhere", Via="x", **{"x-api-key": key}) == 404
    assert status_of(swarm, "/v2/keys", Authorization=f"Bearer {key}") == 403
    swarm.stop_queen()
    swarm.start_queen()
    assert status_of(swarm, "/v1/nowhere", Via="x", **{"x-api-key": key}) == 404
    (listed,) = as_json(swarm, "keys", "list")["keys"]
    assert listed["requests"] == 2
    revoked = swarm.run("keys", "revoke", "alice")
    assert (revoked.returncode, revoked.stdout, revoked.stderr) == (0, "", "The key alice is revoked.\n")
    assert status_of(swarm, "/v1/nowhere", Via="x", **{"x-api-key": key}) == 401
    assert as_json(swarm, "keys", "list") == {"keys": []}
    lost = swarm.run("keys", "revoke", "alice")
    assert (lost.returncode, lost.stderr.splitlines()[0]) == (1, "rbee: there is no key alice")
    written = b"".join(path.read_bytes() for path in swarm.home.rglob("*") if path.is_file())
    assert key.encode() not in written
    swarm.end()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create",), "NAME is missing"),
        (("create", "a b"), "a letter or digit, then"),
        (("create", "token"), "token stands for callers without a key"),
        (("create", "x", "--expires", "soon"), "is no time"),
        (("create", "x", "--expires", "0"), "expected"),
        (("create", "x", "--models", "a\tb"), "text without control characters"),
        (("revoke", ""), "a letter or digit, then"),
        (("revoke", "../x"), "a letter or digit, then"),
    ],
)
def test_a_wrong_key_is_refused_with_the_reason(swarm: Swarm, arguments: tuple[str, ...], message: str) -> None:
    done = swarm.run("keys", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_became_of_a_request_is_known_to_the_next_queen_too(swarm: Swarm) -> None:
    swarm.start_queen()
    follower = swarm.start("requests", "--follow", "--json")
    assert follower.stdout is not None
    done = swarm.run("infer", "--prompt", PROMPT, "--max-tokens", "5")
    assert done.returncode == 0, done.stderr
    told = json.loads(follower.stdout.readline())
    (listed,) = as_json(swarm, "requests")["requests"]
    assert listed == told
    assert (listed["caller"], listed["route"], listed["tokens"]) == ("token", "POST /v2/tasks", 5)
    assert (listed["end"], listed["node"], listed["model"]) == ("length", "local", "builtin:bee-stories")
    assert listed["prompt_tokens"] > 0
    assert 0 < listed["queue_ms"] <= listed["first_token_ms"] <= listed["total_ms"]
    story = swarm.run("why", listed["id"][:8]).stdout
    for words in (
        "Starting a worker for builtin:bee-stories on cpu:0",
        "Placed on local",
        "Ended: length, after 5 tokens",
    ):
        assert words in story
    assert re.search(r"^who +token, from 127\.0\.0\.1$", story, re.MULTILINE)
    refused = status_of(swarm, "/v2/tasks", Authorization="Bearer wrong")
    assert refused == 401
    swarm.stop_queen()
    assert follower.wait(PATIENCE) == 0
    follower.stdout.close()
    assert follower.stderr is not None
    follower.stderr.close()
    assert as_json(swarm, "requests")["requests"] == [listed], "without a queen one is started for it"
    latest = swarm.run("why")
    assert latest.stdout == story == swarm.run("why", listed["id"]).stdout
    assert latest.stderr == "This is the latest request; `rbee requests` lists all.\n"
    lost = swarm.run("why", "ffffffff")
    assert lost.returncode == 1
    assert lost.stderr.startswith("rbee: nothing is known of a request with this id\nhint: `rbee requests` shows")
    everything = b"".join(path.read_bytes() for path in swarm.home.rglob("*") if path.is_file())
    assert PROMPT.encode() not in everything
    swarm.end()


def test_up_says_where_and_to_whom_it_is_open(swarm: Swarm) -> None:
    port = swarm.env["RBEE_QUEEN_PORT"]
    for flags, words, host in (
        (
            (),
            "`rbee keys create NAME` makes a key for others; `rbee up --lan` listens on the network too.",
            "127.0.0.1",
        ),
        (("--lan",), "with a key that `rbee keys create NAME` makes. HTTP is not encrypted.", "0.0.0.0"),
        (("--lan", "--open"), "may use models, without a key.", "0.0.0.0"),
    ):
        done = swarm.run("up", *flags)
        assert (done.returncode, done.stdout) == (0, "")
        assert f"Base URL for clients of OpenAI's API: http://127.0.0.1:{port}/v1" in done.stderr
        assert done.stderr.endswith(f"{words}\n")
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
        hexadecimal = {"127.0.0.1": "0100007F", "0.0.0.0": "00000000"}[host]
        assert f"{hexadecimal}:{int(port):04X}" in listening
        is_open = "--open" in flags
        assert status_of(swarm, "/v1/nowhere", Via="a proxy") == (404 if is_open else 401)
        assert status_of(swarm, "/v2/keys") == 401
        log = (swarm.home / "logs" / "queen.log").read_text()
        assert ("OPEN: everyone who reaches the queen's port may use models" in log) == is_open
        again = swarm.run("up", "--open")
        assert "--open is for one that is started: `rbee down` first." in again.stderr
        assert swarm.run("down").returncode == 0
    wait_until(lambda: not swarm.processes(), "processes are left")
