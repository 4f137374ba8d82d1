"""Lives through the mix of a day in some minutes, and looks whether anything grows: memory, descriptors, waiting.

python3 build/bench/day.py                       ten minutes
python3 build/bench/day.py --minutes 2           fewer
python3 build/bench/day.py --plot docs/plots     with plots

A real queen, hive and workers serve a real model (SmolLM2) under two names that do not fit into memory together. People
chat and take their time; an agent adds what its tools say to a long prompt; one asks and leaves in the middle. Once a
minute all rest, and someone asks for the other model, for which the first has to make room. The table says what each
fifth of the time was like.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build"), str(Path(__file__).parent)]

import environment  # noqa: E402

environment.enter()

import httpx  # noqa: E402
import psutil  # noqa: E402
from comparison import models  # noqa: E402
from comparison.measuring import machine_state  # noqa: E402
from comparison.svg import Chart, draw  # noqa: E402

from tests.kit.swarm import Swarm  # noqa: E402

CHAT = "/v1/chat/completions"
PARTS = 5
"""Of the time, each of which has a row."""
LOOK_SECONDS = 2.0
MAX_MEMORY_MB = 700
CHATTERS = 3
TURNS = 6
ROUND_SECONDS, REST_SECONDS = 60.0, 15.0
SYSTEM = "You are the assistant of a beekeeper. Answer briefly, and in plain words. " * 6
TOOLS = "The tool lists hives: each has a number, a queen, a weight in kilograms, and a note of its keeper. " * 50
WORDS = ("bee", "hive", "honey", "wax", "queen", "flower", "meadow", "rain", "wind", "sun", "swarm", "smoke", "comb")
GROWTH = 1.15
"""How much more the last part may take than the second: the first one warms up."""


class Sample(NamedTuple):
    """What the processes of one role took together at a moment."""

    at: float
    role: str
    megabytes: float
    descriptors: int


class Asked(NamedTuple):
    """A request that has ended."""

    at: float
    who: str
    first_token: float
    prompt: int
    cached: int
    end: str


class Day:
    """People and programs that ask one swarm until the time is over."""

    def __init__(self, swarm: Swarm, names: tuple[str, str], seconds: float) -> None:
        self._swarm = swarm
        self._names = names
        self._began = time.monotonic()
        self._until = self._began + seconds
        self.samples: list[Sample] = []
        self.asked: list[Asked] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def rest(self) -> None:
        """Wait for the end of the time in which all rest, if this is one."""
        while self.now % ROUND_SECONDS >= ROUND_SECONDS - REST_SECONDS and not self.is_over:
            time.sleep(0.2)

    def live(self) -> None:
        """Return when the time is over, and everyone has their answer."""
        people: list[Callable[[random.Random], None]] = [
            *[self._chatter] * CHATTERS,
            self._agent,
            self._leaver,
            self._other,
        ]
        threads = [threading.Thread(target=self._person, args=(one, seed)) for seed, one in enumerate(people)]
        for thread in threads:
            thread.start()
        while not self.is_over:
            self._look()
            time.sleep(LOOK_SECONDS)
        for thread in threads:
            thread.join()

    def _person(self, one: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over:
            one(chance)

    def _chatter(self, chance: random.Random) -> None:
        messages = [{"role": "system", "content": SYSTEM}]
        for _ in range(TURNS):
            question = f"What do you know of {' and '.join(chance.sample(WORDS, 3))}?"
            messages.append({"role": "user", "content": question})
            answer = self._ask("chat", self._names[0], messages, chance.randint(10, 60))
            messages.append({"role": "assistant", "content": answer})
            time.sleep(chance.uniform(0, 3))
            self.rest()
            if self.is_over:
                return

    def _agent(self, chance: random.Random) -> None:
        messages = [{"role": "system", "content": TOOLS}, {"role": "user", "content": "Look after the hives."}]
        for _ in range(TURNS):
            answer = self._ask("agent", self._names[0], messages, 24)
            messages.append({"role": "assistant", "content": answer})
            weights = ", ".join(f"hive {number}: {chance.randint(10, 60)} kg" for number in range(8))
            messages.append({"role": "user", "content": f"The tool says: {weights}."})
            self.rest()
            if self.is_over:
                return
        time.sleep(1)

    def _leaver(self, chance: random.Random) -> None:
        question = f"Write a long story of {' and '.join(chance.sample(WORDS, 4))}."
        self._ask("leaves", self._names[0], [{"role": "user", "content": question}], 300, leave=chance.randint(0, 20))
        time.sleep(chance.uniform(2, 6))
        self.rest()

    def _other(self, chance: random.Random) -> None:
        at = ROUND_SECONDS - REST_SECONDS + 1 - self.now % ROUND_SECONDS
        time.sleep(max(0.0, min(at % ROUND_SECONDS, self._until - time.monotonic())))
        if self.is_over:
            return
        question = [{"role": "user", "content": f"What is a {chance.choice(WORDS)}?"}]
        self._ask("other model", self._names[1], question, 20)

    def _ask(
        self, who: str, model: str, messages: list[dict[str, str]], limit: int, *, leave: int | None = None
    ) -> str:
        """Return the answer; after `leave` pieces of it the client is gone."""
        body = {
            "model": model,
            "messages": messages,
            "max_tokens": limit,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started, first, text, usage, end = time.monotonic(), 0.0, "", {"prompt_tokens": 0}, "cut"
        with self._swarm.client() as client, client.stream("POST", CHAT, json=body, timeout=120) as stream:
            if stream.status_code != 200:
                end = str(stream.status_code)
                time.sleep(1)
            pieces = 0
            for line in stream.iter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    end = str(chunk["error"].get("code"))
                    break
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices", ()):
                    text += choice["delta"].get("content") or ""
                    pieces += 1
                    first = first or (time.monotonic() - started) * bool(text)
                    end = choice["finish_reason"] or end
                if leave is not None and pieces > leave:
                    end = "left"
                    break
        details: dict[str, Any] = usage.get("prompt_tokens_details") or {}
        self.asked.append(Asked(self.now, who, first, usage["prompt_tokens"], details.get("cached_tokens", 0), end))
        return text

    def _look(self) -> None:
        """Note what the processes take: the proportional share of memory that several map."""
        by_role: dict[str, tuple[float, int]] = {}
        for running in self._swarm.processes():
            try:
                process = psutil.Process(running.identity.pid)
                memory, files = process.memory_full_info().pss / 1e6, process.num_fds()
            except psutil.Error:
                continue
            before = by_role.get(running.role, (0.0, 0))
            by_role[running.role] = (before[0] + memory, before[1] + files)
        self.samples += [Sample(self.now, role, *taken) for role, taken in by_role.items() if role]


def main() -> int:
    """Print the table; returns 1 when something has grown, or a request has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="default: 10")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="where to write plots")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        files = [Path(home) / f"{name}.gguf" for name in ("first", "other")]
        for file in files:
            shutil.copy(models.find("smollm2"), file)
        swarm = Swarm(
            Path(home) / "swarm",
            RBEE_HIVE_MAX_MEMORY=str(MAX_MEMORY_MB),
            RBEE_MODELS_ALIASES=f"first=file:{files[0]} other=file:{files[1]}",
        )
        try:
            swarm.start_queen()
            day = Day(swarm, ("first", "other"), given.minutes * 60)
            print(machine_state(), flush=True)
            day.live()
            problems = swarm.tracebacks()
        finally:
            swarm.kill()
    seconds = given.minutes * 60
    print("\n".join(table(day, seconds)))
    if given.plot:
        write_plots(day, given.plot)
    problems += failures(day, seconds)
    print("\n".join(problems) or "nothing has grown, and no request has failed")
    return 1 if problems else 0


def table(day: Day, seconds: float) -> list[str]:
    """Return what each part of the time was like."""
    roles = sorted({sample.role for sample in day.samples})
    head = ["minutes", "requests", "cached", "first token", "p95", *(f"{role} MB, files" for role in roles)]
    lines = ["  ".join(f"{word:>16}" for word in head)]
    for part in range(PARTS):
        low, high = seconds * part / PARTS, seconds * (part + 1) / PARTS
        asked = [one for one in day.asked if low <= one.at < high]
        first = sorted(one.first_token for one in asked if one.first_token)
        known = sum(one.cached for one in asked) / max(1, sum(one.prompt for one in asked))
        row = [
            f"{low / 60:.1f} to {high / 60:.1f}",
            str(len(asked)),
            f"{known:.0%}",
            f"{median(first):.2f} s" if first else "",
            f"{first[int(len(first) * 0.95)]:.2f} s" if first else "",
        ]
        for role in roles:
            taken = [sample for sample in day.samples if sample.role == role and low <= sample.at < high]
            row.append(f"{taken_by(taken)[0]:.0f}, {taken_by(taken)[1]:.0f}" if taken else "")
        lines.append("  ".join(f"{word:>16}" for word in row))
    ends = Counter(f"{one.who}: {one.end}" for one in day.asked)
    return [*lines, ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))]


def taken_by(samples: list[Sample]) -> tuple[float, float]:
    """Return the median of megabytes and of descriptors."""
    return median(sample.megabytes for sample in samples), median(sample.descriptors for sample in samples)


def failures(day: Day, seconds: float) -> list[str]:
    """Return what went wrong, in words."""
    bad = [one for one in day.asked if one.end not in ("stop", "length", "left")]
    found = [f"{one.who} failed after {one.at:.0f} s: {one.end}" for one in bad]
    for role in ("queen", "hive", "worker"):
        parts = [
            [s for s in day.samples if s.role == role and seconds * at / PARTS <= s.at < seconds * (at + 1) / PARTS]
            for at in (1, PARTS - 1)
        ]
        if not all(parts):
            found.append(f"the {role} was not seen")
            continue
        for what, before, after in zip(("MB", "files"), *map(taken_by, parts), strict=True):
            if after > before * GROWTH + 2:
                found.append(f"the {role} has grown from {before:.0f} to {after:.0f} {what}")
    return found


def write_plots(day: Day, folder: Path) -> None:
    """Draw what was seen."""
    folder.mkdir(parents=True, exist_ok=True)
    roles = sorted({sample.role for sample in day.samples})
    memory = {role: [(s.at / 60, s.megabytes) for s in day.samples if s.role == role][::5] for role in roles}
    chart = Chart("Memory through a day's mix", "minutes", "MB", memory)
    (folder / "day-memory.svg").write_text(draw(chart), "utf-8")
    waiting = {
        who: [(one.at / 60, one.first_token) for one in day.asked if one.who == who and one.first_token]
        for who in ("chat", "agent")
    }
    chart = Chart("First token through a day's mix", "minutes", "seconds", waiting)
    (folder / "day-first-token.svg").write_text(draw(chart), "utf-8")
    known, prompts, share = 0, 0, []
    for one in sorted(day.asked):
        known, prompts = known + one.cached, prompts + one.prompt
        share.append((one.at / 60, 100 * known / max(1, prompts)))
    chart = Chart("Tokens of prompts that were known", "minutes", "percent so far", {"all": share[::5]})
    (folder / "day-cached.svg").write_text(draw(chart), "utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except httpx.HTTPError as error:
        sys.exit(f"the swarm was lost: {error!r}")
