"""Measures what a user waits for: start-up, first token, a whole cold run, and the memory of queen and hive.

python3 build/bench/latency.py        after `python3 build/test.py zipapp`

Every bound is measured in this one run, against a baseline measured beside it where the bound is a difference.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

from features.lab.machine import Machine  # noqa: E402

PROMPT = "Once upon a time"
RUNS = 15


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.run("--version")  # extracts the program
        rows = [version(machine), cold(machine)]
        machine.start_queen()
        try:
            machine.run("infer", "--prompt", PROMPT)
            rows += [first_token(machine), queen_share(machine), *memory(machine)]
        finally:
            machine.end()
    print(f"{'what':<58} {'measured':>12} {'bound':>10}")
    for name, value, bound, unit in rows:
        print(f"{name:<58} {value:>8.1f} {unit:<3} {bound:>6g} {unit:<3} {'ok' if value <= bound else 'MISSED'}")
    return 0 if all(value <= bound for _, value, bound, _ in rows) else 1


def version(machine: Machine) -> tuple[str, float, float, str]:
    """Time `--version` against a bare interpreter, in turns."""
    bare, ours = [], []
    for _ in range(RUNS):
        bare.append(seconds([machine.python, "-c", "pass"], machine))
        ours.append(seconds(machine.command("--version"), machine))
    return ("--version above `python3 -c pass`", 1000 * (statistics.median(ours) - statistics.median(bare)), 60, "ms")


def seconds(command: list[str], machine: Machine) -> float:
    """Run a command and return how long it took."""
    started = time.perf_counter()
    subprocess.run(command, env=machine.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def cold(machine: Machine) -> tuple[str, float, float, str]:
    """Time a whole ephemeral run: queen, hive and worker start, speak and end."""
    times = [seconds(machine.command("infer", "--prompt", PROMPT), machine) for _ in range(5)]
    return ("ephemeral infer in all, nothing running before", statistics.median(times), 4, "s")


def first_token(machine: Machine) -> tuple[str, float, float, str]:
    """Time from the start of `infer` to the first byte on stdout, with a warm worker."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        child = subprocess.Popen(
            machine.command("infer", "--prompt", PROMPT),
            env=machine.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert child.stdout is not None
        child.stdout.read(1)
        times.append(time.perf_counter() - started)
        child.communicate()
    return ("persistent infer, command start to first token", 1000 * statistics.median(times), 500, "ms")


def queen_share(machine: Machine) -> tuple[str, float, float, str]:
    """Time the first token through the queen's relay against the worker's own, in turns."""
    with machine.queen() as queen:
        task = queen.post("/v2/tasks", json={"prompt": PROMPT}).json()
    direct, relayed = [], []
    for seed in range(RUNS * 2):
        body = {"prompt": PROMPT, "seed": seed, "max_tokens": 3}
        with machine.client(task["worker_url"], task["api_key"]) as worker:
            direct.append(until_token(worker, "/v1/inference", body))
        with machine.queen() as queen:
            relayed.append(until_token(queen, "/v2/tasks", body | {"relay": True}))
    share = statistics.median(relayed) - statistics.median(direct)
    return (f"queen's share of first token (worker alone {statistics.median(direct):.1f} ms)", share, 10, "ms")


def until_token(client, path: str, body: dict[str, object]) -> float:
    """Return the milliseconds from a request to its first token."""
    client.get("/health")  # the connection is made before the clock starts
    started = time.perf_counter()
    with client.stream("POST", path, json=body, headers={"Accept": "text/event-stream"}) as answer:
        for line in answer.iter_lines():
            if line.startswith('data: {"token"'):
                return 1000 * (time.perf_counter() - started)
    raise AssertionError("no token came")


def memory(machine: Machine) -> list[tuple[str, float, float, str]]:
    """Read the resident memory of queen and hive, after all that was asked of them."""
    rows = []
    for pid, words in sorted(machine.processes().items()):
        role = words[2] if len(words) > 2 else ""
        if role in ("queen", "hive"):
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            rows.append((f"resident memory of the {role}", int(fields["VmRSS"].split()[0]) / 1000, 80, "MB"))
    assert len(rows) == 2, json.dumps(machine.processes())
    return rows


if __name__ == "__main__":
    sys.exit(main())
