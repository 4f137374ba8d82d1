"""Measures what `rbee status` costs: one node against twenty, and one of twenty that says nothing.

python3 build/bench/status.py         after `python3 build/test.py zipapp`

The nodes are stand-ins at loopback addresses, in a process of their own; both queens and all nodes run through all of
it, and the two are measured in turns.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

from features.lab.machine import Machine  # noqa: E402
from rbee import __version__  # noqa: E402
from rbee.adapters import tokens  # noqa: E402
from tests.kit.ports import own_address  # noqa: E402
from tests.kit.remote_nodes import register  # noqa: E402

MANY = 20
RUNS = 15
DEAD_RUNS = 3
TOKEN = "rbee_" + "0" * 43


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    with contextlib.ExitStack() as stack:
        addresses = [own_address() for _ in range(MANY)]
        stack.enter_context(hives(addresses))
        one = stack.enter_context(queen(addresses[:1]))
        many = stack.enter_context(queen(addresses))
        times: dict[str, list[float]] = {"one": [], "many": []}
        for _ in range(RUNS):
            times["one"].append(seconds(one, 1))
            times["many"].append(seconds(many, MANY))
        dead = own_address()
        stack.enter_context(listening(dead))
        sick = stack.enter_context(queen([*addresses[1:], dead]))
        with_dead = statistics.median(seconds(sick, MANY - 1) for _ in range(DEAD_RUNS))
    few, all_of_them = statistics.median(times["one"]), statistics.median(times["many"])
    rows = [
        ("status over 1 node", 1000 * few, None, "ms"),
        (f"status over {MANY} nodes", 1000 * all_of_them, None, "ms"),
        (f"{MANY} nodes against 1", all_of_them / few, 3.0, "×"),
        (f"one of {MANY} says nothing: above the others", with_dead - all_of_them, 2.1, "s"),
    ]
    print(f"{'what':<58} {'measured':>12} {'bound':>10}")
    for name, value, bound, unit in rows:
        verdict = "" if bound is None else f" {bound:>6g} {unit:<3} {'ok' if value <= bound else 'MISSED'}"
        print(f"{name:<58} {value:>8.1f} {unit:<3}{verdict}")
    return 0 if all(bound is None or value <= bound for _, value, bound, _ in rows) else 1


@contextlib.contextmanager
def hives(addresses: list[str]) -> Iterator[None]:
    """Have hives at these addresses."""
    program = Path(__file__).with_name("nodes_standin.py")
    child = subprocess.Popen(
        [sys.executable, str(program), __version__, tokens.swarm_id(TOKEN), *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def listening(address: str) -> Iterator[None]:
    """Have connections taken at an address by somebody who never says a word."""
    with socket.socket() as listener:
        listener.bind((address, 9200))
        listener.listen()
        yield


@contextlib.contextmanager
def queen(addresses: list[str]) -> Iterator[Machine]:
    """Have a queen whose nodes are at these addresses."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.run("--version")  # extracts the program
        register(machine.state, *((f"node-{number:02d}", address) for number, address in enumerate(addresses)))
        token = machine.state / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)  # one for both queens: all of the hives are of its swarm
        machine.start_queen()
        try:
            yield machine
        finally:
            machine.end()


def seconds(machine: Machine, alive: int) -> float:
    """Run `rbee status` and return how long it took; that many nodes must have answered."""
    started = time.perf_counter()
    done = subprocess.run(machine.command("status"), env=machine.env, check=True, capture_output=True, text=True)
    took = time.perf_counter() - started
    assert done.stdout.count(" 4 of 4 ") >= alive, done.stdout
    return took


if __name__ == "__main__":
    sys.exit(main())
