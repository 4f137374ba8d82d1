"""Shows in which order a queen gives its slots to a caller with fifty requests, and to one with one that comes later.

python3 build/bench/fairness.py [REQUESTS]

The queen, the hive and what passes between them are real, and the worker is a stand-in with four slots, whose requests
all take the same time. The plot has a row for each request: dots while it waits, and blocks while it has a slot.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

import httpx  # noqa: E402

from tests.kit.local_http import LOCAL  # noqa: E402
from tests.kit.standins import standin  # noqa: E402
from tests.kit.swarm import Swarm  # noqa: E402

SLOTS = 4
TOKENS, PACE = 20, 0.05
COLUMNS = 76
CHAT = "/v1/chat/completions"


def main() -> int:
    """Print the plot and the numbers; returns 1 when the one has waited for longer than a request takes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as home:
        worker = standin("well", "--pace", str(PACE))
        swarm = Swarm(Path(home), RBEE_WORKER_COMMAND=worker, RBEE_WORKER_SLOTS=str(SLOTS))
        try:
            swarm.start_queen()
            requests = measured(swarm, count)
        finally:
            swarm.kill()
    print("\n".join(plot(requests)))
    (one,) = (request for request in requests if request["caller"] == "one")
    taken = [request["total_ms"] - request["queue_ms"] for request in requests if request["caller"] == "many"]
    first_come = count / SLOTS * max(taken) - 1e3 * (one["began_unix"] - requests[0]["began_unix"])
    print(
        f"\n{count} requests of one caller, 1 of another, {SLOTS} slots; each takes {min(taken)} to {max(taken)} ms"
        f"\nThe one waited {one['queue_ms']} ms; first come, first served would be about {first_come:.0f} ms."
    )
    return 0 if one["queue_ms"] <= max(taken) else 1


def measured(swarm: Swarm, count: int) -> list[dict[str, Any]]:
    """Send the many, then the one; returns what the queen knows of all, in the order in which they came."""
    clients = {name: client_of(swarm, name) for name in ("warm", "many", "one")}
    ask(clients["warm"], 1)
    threads = [threading.Thread(target=ask, args=(clients["many"], TOKENS)) for _ in range(count)]
    for thread in threads:
        thread.start()
    while (found := len(listed(swarm, "many"))) < count:  # all of them have come
        if found and not any(thread.is_alive() for thread in threads):
            break
        time.sleep(0.02)
    time.sleep(1.5 * TOKENS * PACE)
    ask(clients["one"], TOKENS)
    for thread in threads:
        thread.join()
    for client in clients.values():
        client.close()
    return sorted([*listed(swarm, "many"), *listed(swarm, "one")], key=lambda request: request["began_unix"])


def client_of(swarm: Swarm, name: str) -> httpx.Client:
    """Return a client with a key of its own."""
    with swarm.client() as queen:
        key = queen.post("/v2/keys", json={"name": name}).json()["key"]
        limits = httpx.Limits(max_connections=1000)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=queen.base_url, headers=headers, timeout=300, limits=limits, **LOCAL)


def ask(client: httpx.Client, tokens: int) -> None:
    """Send one request, and wait for its answer."""
    messages = [{"role": "user", "content": "Once"}]
    client.post(CHAT, json={"messages": messages, "max_tokens": tokens}).raise_for_status()


def listed(swarm: Swarm, caller: str) -> list[dict[str, Any]]:
    """Return the requests of a caller."""
    with swarm.client() as queen:
        found = queen.get("/v2/requests", params={"lines": 1000}).json()["requests"]
    return [request for request in found if request["caller"] == caller]


def plot(requests: list[dict[str, Any]]) -> list[str]:
    """Return a row for each request, in the order in which they got their slots."""
    start = min(request["began_unix"] for request in requests)
    spans = []
    for request in requests:
        came = request["began_unix"] - start
        spans.append((came, came + request["queue_ms"] / 1e3, came + request["total_ms"] / 1e3, request["caller"]))
    scale = COLUMNS / max(end for _, _, end, _ in spans)
    rows = [f"      0 s{'':{COLUMNS - 8}}{COLUMNS / scale:.0f} s"]
    for came, placed, end, caller in sorted(spans, key=lambda span: span[1]):
        at = [round(moment * scale) for moment in (came, placed, end)]
        line = " " * at[0] + "·" * (at[1] - at[0]) + "█" * max(1, at[2] - at[1])
        rows.append(f"{caller:>4}  {line}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
