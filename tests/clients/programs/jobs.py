"""What the programs share that use a swarm by other people's clients: each job is told on stdout, as a line of JSON.

They run in an environment of their own, which knows neither rbee nor pytest.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Job = tuple[str, "Callable[[], object]"]

URL = sys.argv[1]
"""Of the interface, with its /v1."""
MODEL = sys.argv[2]
QUESTION: list[Any] = [{"role": "user", "content": "Tell me of a bee."}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "day": {"enum": ["today", "tomorrow"]}},
    "required": ["city", "day"],
    "additionalProperties": False,
}
TOO_LONG: list[Any] = [{"role": "user", "content": "bee " * 20_000}]


def weather(city: str, day: str) -> str:
    """Tell the weather of a city."""
    assert city in ("Oslo", "Rome"), city
    return f"{city} {day}: {'snow' if city == 'Oslo' else 'sun'}"


def run(jobs: dict[str, tuple[str, Callable[[], object]]]) -> None:
    """Do all jobs, or those that are named on the command line: each has what is asked, and what does it."""
    for name in sys.argv[3:] or jobs:
        asked, job = jobs[name]
        told: dict[str, Any] = {"job": name, "asked": asked, "came": None, "problem": None}
        try:
            told["came"] = str(job())
        except Exception:
            told["problem"] = traceback.format_exc()
        print(json.dumps(told), flush=True)
    sys.stdout.flush()
    os._exit(0)  # some clients' threads wait for their own servers
