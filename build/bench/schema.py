"""Measures what a JSON schema costs: its compilation, and the speed at which text is written under it.

python3 build/bench/schema.py [--model FILE] [--rounds 7]

Through the routes of a worker in this process, with SmolLM2-135M unless another model is named: a small model has the
least time to lose. Free text and text under a schema are asked for in turns, and the fastest answer of each counts,
which other programs disturbed least. The schemas that are compiled are those of the JSON-Schema-Test-Suite, and a few
as programs send them.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

import trio  # noqa: E402

import test_data  # noqa: E402
from rbee.errors import InvalidRequestError  # noqa: E402
from rbee.wire.chat.conversation import ChatMessage, Conversation, JsonSchema  # noqa: E402
from rbee.worker.llama import header  # noqa: E402
from rbee.worker.llama.model import Model  # noqa: E402
from rbee.worker.output.control_tokens import ControlTokens  # noqa: E402
from rbee.worker.output.families import families  # noqa: E402
from rbee.worker.output.grammar import grammar_of  # noqa: E402
from tests.kit.worker_serving import Serving, serving  # noqa: E402

TOKENS = 200
SLOWER_BOUND, COMPILE_BOUND = 1.10, 50.0
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "job": {"enum": ["cook", "driver", "nurse", "teacher"]},
        "home": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            "required": ["street", "city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "job", "home"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 100}
AS_SENT = [
    PERSON,
    PEOPLE,
    {"type": "object", "properties": {"steps": {"type": "array", "items": PERSON, "maxItems": 5}, "answer": PERSON}},
    {"type": "object", "additionalProperties": {"anyOf": [PERSON, {"type": "number"}, {"type": "null"}]}},
    {"type": "object", "properties": {f"field_{number}": {"type": ["string", "null"]} for number in range(60)}},
]
QUESTION = "Write a list of people with their names, ages, jobs and homes, each with many words."


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    path = options.model or test_data.model()
    sys.argv[0] = str(ROOT / "rbee" / "__main__.py")  # the program that renders chat templates
    free, held = trio.run(speeds, path, options.rounds)
    first, times, refused = compiled(path)
    median = statistics.median(times)
    print(f"free text: {free:.3f} ms a token; under a schema: {held:.3f} ms")
    print(f"{len(times)} schemas compiled, {refused} refused; the first of a model takes {first:.0f} ms")
    print(f"95th percentile of the others: {statistics.quantiles(times, n=20)[-1]:.1f} ms; most: {max(times):.1f} ms")
    rows = [
        ("a token under a schema, by one of free text", held / free, SLOWER_BOUND, "x"),
        ("the median schema is compiled in", median, COMPILE_BOUND, "ms"),
    ]
    for what, number, bound, unit in rows:
        print(f"{what:<50} {number:>8.2f} {unit:<2} <= {bound:>5g} {unit:<2} {'MET' if number <= bound else 'MISSED'}")
    return 0 if all(number <= bound for _, number, bound, _ in rows) else 1


async def speeds(path: Path, rounds: int) -> tuple[float, float]:
    """Return the least milliseconds for a token of free text, and of text under a schema."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    async with serving(path, slots=1, context=1024) as worker:
        for number in range(rounds + 1):
            for is_held in (False, True):
                milliseconds = await a_token(worker, is_held=is_held, seed=number)
                if number:  # the first is to warm up
                    taken[is_held].append(milliseconds)
    return min(taken[False]), min(taken[True])


async def a_token(worker: Serving, *, is_held: bool, seed: int) -> float:
    """Return the milliseconds for a token after the first of one answer."""
    conversation = {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]}
    if is_held:
        conversation["format"] = {"type": "json_schema", "schema": PEOPLE}
    asked = {"conversation": conversation, "max_tokens": TOKENS, "seed": seed, "temperature": 0.7}
    response = await worker.client.post("/v1/inference", json=asked, timeout=120)
    assert response.status_code == 200, response.text
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    ended = events[-1]
    assert ended["type"] == "answer_ended", ended
    return ended["text_ms"] / (ended["usage"]["completion_tokens"] - 1)


def compiled(path: Path) -> tuple[float, list[float], int]:
    """Return the milliseconds for a model's first schema, those for each of the others, and how many it refused."""
    times, refused = [], 0
    with closing(Model(path, header.read(path))) as model:
        controls = ControlTokens({}, model.end_tokens())
        for schema in [{"type": "null"}, *AS_SENT, *suite()]:
            conversation = Conversation(messages=[ChatMessage(role="user")], format=JsonSchema(schema=schema))
            began = time.perf_counter()
            try:
                grammar = grammar_of(conversation, families()[-1].syntax, controls, is_thinking=False, may_think=False)
                assert grammar is not None
                model.constrained(grammar)
            except InvalidRequestError:
                refused += 1
                continue
            times.append(1000 * (time.perf_counter() - began))
    return times[0], times[1:], refused


def suite() -> list[object]:
    """Return the schemas of the official suite, each once."""
    found: dict[str, object] = {}
    for file in sorted((test_data.schemas() / "draft2020-12").glob("*.json")):
        for group in json.loads(file.read_text("utf-8")):
            found[json.dumps(group["schema"])] = group["schema"]
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main())
