"""Measures a download of 1 GB from the stand-in for the hub against curl, to the same disk, the verification included.

python3 build/bench/download.py        after `python3 build/test.py zipapp`

curl and the hive take turns, so that what else the machine does meets both; the medians are compared.
"""

import hashlib
import json
import os
import shutil
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

import psutil  # noqa: E402

from features.lab.machine import Machine  # noqa: E402
from tests.kit.hub import REVISION  # noqa: E402

SIZE = 1_000_000_000
RUNS = 5
REF, NAME = "bees/large", "large.Q4_K_M.gguf"


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    # Not /tmp, which may be memory.
    with tempfile.TemporaryDirectory(dir=ROOT / "dist") as folder:
        source = make(Path(folder) / NAME)
        with (
            subprocess.Popen(
                [sys.executable, ROOT / "tests" / "kit" / "hub.py", REF, source],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as hub,
            tempfile.TemporaryDirectory(dir=folder) as home,
        ):
            url = hub.stdout.readline().strip()
            machine = Machine(Path(home))
            machine.env |= {"HF_ENDPOINT": url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}
            machine.start_hive()
            try:
                ours, theirs, growth = measure(machine, url, source)
            finally:
                machine.end()
                hub.stdin.close()
    ratio = statistics.median(theirs) / statistics.median(ours)
    rows = [
        ("curl, MB/s", SIZE / statistics.median(theirs) / 1e6, None),
        ("rbee with SHA-256, MB/s", SIZE / statistics.median(ours) / 1e6, None),
        ("rbee's share of curl's speed", ratio, ratio >= 0.8),
        ("growth of the hive's memory, MB", growth / 1e6, growth < 0.05 * SIZE),
    ]
    for what, value, is_met in rows:
        print(f"{what:<34} {value:9.2f}  {'' if is_met is None else 'ok' if is_met else 'MISSED'}")
    return 0 if all(is_met is not False for *_, is_met in rows) else 1


def make(path: Path) -> Path:
    """Write a file that does not compress and is not the same all over."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(hashlib.sha256(number.to_bytes(4)).digest() + block[32:])
        file.write(block[: SIZE & ((1 << 20) - 1)])
        file.seek(0)
        file.write(b"GGUF")  # a hive takes nothing else for a model
    return path


def measure(machine: Machine, url: str, source: Path) -> tuple[list[float], list[float], int]:
    """Return the seconds of each of our downloads and of curl's, and by how much the hive's memory has grown."""
    hive = next(psutil.Process(pid) for pid, words in machine.processes().items() if "hive" in words)
    ours, theirs, growth = [], [], 0
    before = hive.memory_info().rss
    for _ in range(RUNS):
        theirs.append(curl(f"{url}/{REF}/resolve/{REVISION}/{NAME}", source.with_name("curl")))
        seconds, most = rbee(machine, hive)
        ours.append(seconds)
        growth = max(growth, most - before)
    return ours, theirs, growth


def curl(url: str, to: Path) -> float:
    """Return how long curl takes, with what the file system has taken brought to the disk."""
    started = time.monotonic()
    subprocess.run(["curl", "-sSfL", "-o", to, url], check=True)
    with to.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.monotonic() - started
    assert to.stat().st_size == SIZE
    to.unlink()
    return seconds


def rbee(machine: Machine, hive: psutil.Process) -> tuple[float, int]:
    """Return how long a download of the hive takes, and the most memory that it had meanwhile."""
    most = 0
    with machine.hive() as client:
        started = time.monotonic()
        download_id = client.post("/v1/models/download", json={"model_ref": f"hf:{REF}"}).json()["download_id"]
        with client.stream("GET", "/v1/models/download/progress", params={"id": download_id}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    most = max(most, hive.memory_info().rss)
                    last = json.loads(line.removeprefix("data: "))
        seconds = time.monotonic() - started
        assert last["stage"] == "complete", last
        client.delete(f"/v1/models/{Path(NAME).stem}").raise_for_status()
    shutil.rmtree(machine.home / ".local/share/rbee/models", ignore_errors=True)
    return seconds, most


if __name__ == "__main__":
    sys.exit(main())
