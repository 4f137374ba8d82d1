"""Runs what is compared in turns, and keeps what came of it, with what else the machine did meanwhile."""

import asyncio
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from comparison.client import Way, ask
from comparison.models import Words
from comparison.sides import Load, ours, theirs

ROOT = Path(__file__).resolve().parents[3]
T = TypeVar("T")
PAUSE = 0.5
"""Seconds before each measurement: threads of the other side are asleep then, and who else computes shows."""


WRITTEN = "written"
"""Among the numbers of a round: the share of the wanted tokens that were written; a text may end before."""


class Number(NamedTuple):
    """Something that is measured. `better` says which way, and `bounds` how many times better a way is to be, at least.

    With `most` the number itself has a bound.
    """

    name: str
    unit: str
    better: str
    bounds: Mapping[str, float]
    most: float | None = None


class Options(NamedTuple):
    """What the command line says."""

    program: Path | None
    further: tuple[str, ...]
    rounds: int
    threads: int
    turns: int


@dataclass
class Found:
    """What was measured of one row with one model: for each number and way the values, in order of the rounds."""

    row: str
    model: str
    baseline: str
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)

    def add(self, number: str, way: str, value: float) -> None:
        self.values.setdefault(number, {}).setdefault(way, []).append(value)

    def median(self, number: str, way: str) -> float | None:
        values = self.values.get(number, {}).get(way)
        return statistics.median(values) if values else None

    def gain(self, number: Number, way: str) -> float | None:
        """Return how many times better than the baseline a way is; nothing where one of the two is missing or 0."""
        mine, other = self.median(number.name, way), self.median(number.name, self.baseline)
        if not mine or not other or way == self.baseline:
            return None
        return other / mine if number.better == "less" else mine / other


Round = Callable[[Way, Words], Coroutine[Any, Any, dict[str, float]]]
"""Measures once in one way, with words that nobody has asked with before; returns numbers by name."""


def compare(found: Found, load: Load, options: Options, measure: Round, ways: tuple[str, ...]) -> None:
    """Measure in all ways in turns: the queen, the worker itself, and llama-server where there is one."""
    with ours(load) as side:
        worker = side.worker()
        here = {"queen": side.queen, "worker": worker}
        if options.program is None:
            _in_turns(found, load, options, measure, [here[name] for name in ways])
            return
        with theirs(options.program, load, *options.further) as other:
            _in_turns(found, load, options, measure, [*(here[name] for name in ways), other.way])


def _in_turns(found: Found, load: Load, options: Options, measure: Round, ways: list[Way]) -> None:
    for number, way in in_turns(ways, options.rounds, warm_up=True):
        words = Words(load.model, secrets.token_hex(8))
        if number < 0:
            asyncio.run(_warm_up(way, words))
            continue
        found.others.append(others_share())
        for name, value in asyncio.run(measure(way, words)).items():
            found.add(name, way.name, value)
        tell(f"{found.row} {found.model}: round {number + 1} of {options.rounds}, {way.name}")


async def _warm_up(way: Way, words: Words) -> None:
    await ask(way, way.text(words.text(16), 4))


def in_turns(ways: list[T], rounds: int, *, warm_up: bool = False) -> Iterator[tuple[int, T]]:
    """Yield each round's number and each way; every second round in the opposite order. A warm-up is round -1."""
    for number in range(-1 if warm_up else 0, rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            yield number, way


def tell(line: str) -> None:
    """Say on stderr how far it is."""
    print(f"  {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


_BEGAN = _ticks()


def others_share() -> float:
    """Return which share of the processors other programs use, while we and what we started rest."""
    before = _ticks()
    time.sleep(PAUSE)
    spent = [now - then for now, then in zip(_ticks(), before, strict=True)]
    return 1 - (spent[3] + spent[4]) / max(1, sum(spent[:8]))


def machine_state() -> str:
    """Describe the machine as it is now, for the head and the foot of a table; steal is since this program began."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    frequency = f"{float(fields['cpu MHz']):.0f} MHz" if "cpu MHz" in fields else "frequency unknown"
    ticks = [now - then for now, then in zip(_ticks(), _BEGAN, strict=True)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, commit {commit}, {len(os.sched_getaffinity(0))} of "
        f"{os.cpu_count()} processors ({fields.get('model name', platform.machine())}, {frequency}), load {load}, "
        f"steal {100 * ticks[7] / max(1, sum(ticks[:8])):.2f} %"
    )
