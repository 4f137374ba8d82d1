"""Measures what OpenAI's API at the queen costs: each number with its bound, in one run.

python3 build/bench/api.py               the queen of this tree
python3 build/bench/api.py --litellm     beside LiteLLM's proxy, which is installed once, into a venv of its own

Hive and worker are `api_standin`, a process of its own. Delays are differences of medians or percentiles: what is asked
in turns is a request through the queen, and one at the worker itself. What the queen computes is
taken from /proc: it changes less than times do where other programs keep the machine busy, and hardly where they
do not. A chunk's cost is what the queen computes for a second of streams that all run, by their number.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build"), str(Path(__file__).parent)]

import environment  # noqa: E402

environment.enter()

import api_load  # noqa: E402
import first_token  # noqa: E402
from api_load import Target  # noqa: E402
from first_token import TOKEN, WORKER_ID  # noqa: E402

import cache  # noqa: E402
from rbee import __version__  # noqa: E402
from rbee.adapters import tokens  # noqa: E402
from tests.kit.ports import hold_port, own_address  # noqa: E402
from tests.kit.remote_nodes import HIVE_PORT  # noqa: E402

RATE, SECONDS, WARM_UP = 20, 10, 20
STREAMS, PACE, STREAM_SECONDS = 200, 20, 10
FEW = 40
"""Streams of the comparison chunk by chunk: the queen computes for less than a fifth of the time."""
LITELLM = "litellm[proxy]==1.89.7"


class Row(NamedTuple):
    """A number and its bound; it is met where the number is at most, or with `at_least` at least, so much."""

    what: str
    number: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.number >= self.bound if self.at_least else self.number <= self.bound


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy too, after installing it")
    has_litellm = parser.parse_args().litellm
    rows: list[Row] = []
    address = own_address()
    print(f"{'what':<66} {'measured':>12}  {'bound':>13}")

    def show(*found: Row) -> None:
        for row in found:
            rows.append(row)
            sign, verdict = ">=" if row.at_least else "<=", "MET" if row.is_met else "MISSED"
            unit = f"{row.unit:<4}"
            print(f"{row.what:<66} {row.number:>8.3f} {unit} {sign} {row.bound:>6g} {unit} {verdict}", flush=True)

    with standin(address), first_token.queen(ROOT, [address]) as (port, pid):
        chat = Target("chat", "127.0.0.1", port, "/v1/chat/completions", TOKEN, {"stream": True})
        relay = Target("relay", "127.0.0.1", port, "/v2/tasks", TOKEN, {"relay": True, "typed": True}, is_chat=False)
        key = tokens.worker_key(TOKEN, WORKER_ID)
        worker = Target("worker", address, int(HIVE_PORT), "/v1/inference", key, {"typed": True}, is_chat=False)
        with contextlib.ExitStack() as stack:
            ways = [chat, relay, worker]
            if has_litellm:
                ways += [stack.enter_context(litellm(address)), worker_as_openai(address)]
            times = asyncio.run(first_tokens(ways))
        share = [through - median(times, "worker") for through in times["chat"]]
        show(
            Row("first token: the dialect above /v2/tasks", median(times, "chat") - median(times, "relay"), 1.5, "ms"),
            Row("first token: the queen's share, median", statistics.median(share), 3, "ms"),
            Row("first token: the queen's share, 95th percentile", statistics.quantiles(share, n=20)[-1], 8, "ms"),
        )
        if has_litellm:
            its_share = median(times, "litellm") - median(times, "openai")
            print(f"{'first token: the share of LiteLLM':<66} {its_share:>8.3f} ms")
            show(
                Row(
                    "first token: LiteLLM's share by the queen's",
                    its_share / statistics.median(share),
                    3,
                    "",
                    at_least=True,
                )
            )
        costs = {way.name: asyncio.run(chunk_cost(way, pid)) for way in (chat, relay, chat, relay)}
        show(Row("a chunk: the dialect above /v2/tasks, computed", costs["chat"] - costs["relay"], 0.05, "ms"))
        show(*asyncio.run(many(chat, pid)))
    return 0 if all(row.is_met for row in rows) else 1


def median(times: dict[str, list[float]], name: str) -> float:
    return statistics.median(times[name])


async def first_tokens(ways: list[Target]) -> dict[str, list[float]]:
    """Return the milliseconds to the first token in each way, in turns, RATE times a second."""
    connections = {way.name: await api_load.connect(way) for way in ways}
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    due = time.perf_counter()
    for number in range(WARM_UP + RATE * SECONDS):
        due = max(due + 1 / RATE, time.perf_counter())
        await asyncio.sleep(max(0, due - time.perf_counter()))
        first = number % len(ways)  # in turns: it finds the caches cold
        for way in ways[first:] + ways[:first]:
            stream = connections[way.name]
            await stream.ask(way, "0 1")
            found[way.name].append(1000 * (stream.times[0] - stream.asked))
    for stream in connections.values():
        stream.close()
    return {name: times[WARM_UP:] for name, times in found.items()}


async def chunk_cost(way: Target, pid: int) -> float:
    """Return the milliseconds that the queen computes for a chunk, of streams that neither begin nor end meanwhile."""
    computed, _ = await computed_while_all_run(way, FEW, pid)
    return 1000 * computed / (FEW * PACE)


async def many(way: Target, pid: int) -> list[Row]:
    """Return what is to be held with many streams."""
    computed, streams = await computed_while_all_run(way, STREAMS, pid)
    late = max(stream.times[-1] - stream.times[0] - (len(stream.times) - 1) / PACE for stream in streams)
    delays = [delay for stream in streams for delay in stream.delays]
    print(f"{'a chunk of 200 streams: on its way, median':<66} {1000 * statistics.median(delays):>8.3f} ms")
    print(f"{'a chunk of 200 streams: computed':<66} {1000 * computed / (STREAMS * PACE):>8.3f} ms")
    return [
        Row(f"{STREAMS} streams at {PACE} tokens/s: the slowest is behind by", 1000 * late, 1000 / PACE, "ms"),
        Row(f"{STREAMS} streams at {PACE} tokens/s: the queen computes", computed, 0.5, "core"),
        Row(f"{STREAMS} streams at {PACE} tokens/s: the queen's memory", resident_mb(pid), 250, "MB"),
    ]


async def computed_while_all_run(way: Target, count: int, pid: int) -> tuple[float, list[api_load.Stream]]:
    """Return the share of a processor that the queen takes while all of these streams run, and the streams."""
    job = asyncio.ensure_future(api_load.together(way, count, PACE, STREAM_SECONDS * PACE))
    await asyncio.sleep(2)
    before, began = computed_seconds(pid), time.perf_counter()
    await asyncio.sleep(STREAM_SECONDS - 3)
    share = (computed_seconds(pid) - before) / (time.perf_counter() - began)
    return share, await job


def computed_seconds(pid: int) -> float:
    """Return how long the threads of a process have computed (proc(5), schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_mb(pid: int) -> float:
    """Return the most memory that a process has had."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1000


@contextlib.contextmanager
def standin(address: str) -> Iterator[None]:
    """Have the hive and its worker."""
    program = Path(__file__).with_name("api_standin.py")
    command = [sys.executable, str(program), __version__, tokens.swarm_id(TOKEN), address]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        child.kill()
        child.communicate()


def worker_as_openai(address: str) -> Target:
    """Return the worker, as LiteLLM asks it."""
    return Target("openai", address, int(HIVE_PORT), "/v1/chat/completions", "k", {"stream": True, "model": "bee"})


@contextlib.contextmanager
def litellm(address: str) -> Iterator[Target]:
    """Have LiteLLM's proxy before the same worker."""
    home = cache.folder() / "bench" / "litellm"
    if not (home / "complete").exists():
        print("installing LiteLLM (once)", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", LITELLM], check=True)
        (home / "complete").touch()
    with tempfile.TemporaryDirectory() as folder:
        parameters = f"{{model: openai/bee, api_base: 'http://{address}:{HIVE_PORT}/v1', api_key: k}}"
        settings = Path(folder) / "config.yaml"
        settings.write_text(f"model_list:\n  - {{model_name: bee, litellm_params: {parameters}}}\n")
        port = hold_port()
        command = [home / "bin" / "litellm", "--config", settings, "--host", "127.0.0.1", "--port", str(port)]
        names = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        child = subprocess.Popen(
            command, env=os.environ | names, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_open(port, child)
            yield Target("litellm", "127.0.0.1", port, "/v1/chat/completions", "k", {"stream": True, "model": "bee"})
        finally:
            child.terminate()
            child.wait()


def wait_until_open(port: int, child: subprocess.Popen[bytes]) -> None:
    """Return once the port is listened at."""
    for _ in range(600):
        assert child.poll() is None, "LiteLLM has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError("LiteLLM does not listen")


if __name__ == "__main__":
    sys.exit(main())
