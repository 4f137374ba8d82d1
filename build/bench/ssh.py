"""Measures what bringing rbee to another machine costs, against OpenSSH's own tools in the same run.

python3 build/bench/ssh.py        after `python3 build/test.py zipapp`

The machine is a real sshd on a loopback address of this one, with an empty home folder.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402
import openssh  # noqa: E402

environment.enter()

import trio  # noqa: E402

from features.lab.machine import PROGRAM, Machine  # noqa: E402
from features.lab.node import Node, Nodes  # noqa: E402
from rbee.adapters.ssh import handshake  # noqa: E402
from rbee.adapters.ssh.target import Target  # noqa: E402

RUNS = 7
SHARE, BEYOND = 0.8, 20.0
COMMANDS = ("add", "install", "infer")


def main() -> int:
    """Print the tables; returns 1 when a bound is missed."""
    if missing := openssh.ensure():
        print(missing)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder) / "nodes")
        machine = Machine(Path(folder) / "home")
        machine.home.mkdir()
        try:
            return max(copy(nodes.add("copies"), Path(folder)), bare(nodes.add("bare"), machine))
        finally:
            machine.kill()
            nodes.kill()


def copy(node: Node, folder: Path) -> int:
    """Time the copy of the file, connection and all, against `scp`, in turns."""
    ours, theirs = [], []
    sshd = node.sshd
    known = folder / "known_hosts"
    known.write_text(f"[{node.address}]:{sshd.port} {sshd.public_key}\n")
    scp = ["scp", "-q", "-B", "-i", str(sshd.key), "-P", str(sshd.port), "-o", f"UserKnownHostsFile={known}"]
    for _ in range(RUNS):
        with timed(theirs):
            subprocess.run([*scp, str(PROGRAM), f"{sshd.user}@{node.address}:{node.home}/theirs"], check=True)
        with timed(ours):
            trio.run(upload, node, known)
    assert (node.home / "ours").read_bytes() == (node.home / "theirs").read_bytes() == PROGRAM.read_bytes()
    megabytes = PROGRAM.stat().st_size / 1e6
    share = statistics.median(theirs) / statistics.median(ours)
    print(f"copy of {megabytes:.1f} MB, median of {RUNS} in turns")
    for name, times in (("scp", theirs), ("ours", ours)):
        print(f"  {name:<6} {statistics.median(times):6.3f} s  {megabytes / statistics.median(times):6.1f} MB/s")
    print(f"  our share of scp's speed {share:.2f}, bound {SHARE} {'ok' if share >= SHARE else 'MISSED'}")
    return int(share < SHARE)


async def upload(node: Node, known: Path) -> None:
    """Copy the file as an installation does."""
    target = Target(node.address, node.sshd.port, node.sshd.user, str(node.sshd.key), node.sshd.public_key)
    async with handshake.connect(target, own_known_hosts=known) as connection:
        await connection.upload(PROGRAM, f"{node.home}/ours", mode=0o755, on_progress=lambda _: None)


def bare(node: Node, machine: Machine) -> int:
    """Time what a user does with a bare machine, each command with a queen of its own, up to the first token."""
    machine.run("--version")  # extracts the program here
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with timed(times["add"]):
        node.register(machine)
    with timed(times["install"]):
        node.bring_rbee(machine)
    with timed(times["infer"]):
        keeper = machine.start("infer", "--node", node.name, "--prompt", "Once upon a time")
        assert keeper.stdout is not None
        assert os.read(keeper.stdout.fileno(), 1), "no text came"
    keeper.communicate()
    total = sum(sum(found) for found in times.values())
    print("a bare machine, from nothing to the first token of the bundled model, copy included")
    for name, found in times.items():
        print(f"  {name:<8} {found[0]:6.2f} s")
    print(f"  in all   {total:6.2f} s, bound {BEYOND:g} s beyond the copy {'ok' if total <= BEYOND else 'MISSED'}")
    return int(total > BEYOND)


@contextlib.contextmanager
def timed(into: list[float]):
    """Add how long it took, in seconds."""
    started = time.perf_counter()
    yield
    into.append(time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
