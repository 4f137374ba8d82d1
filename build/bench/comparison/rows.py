"""The rows that both sides are measured alike in: streams, prompts that begin alike, conversations, long prompts."""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comparison.client import Message, Way, ask, begin, together
from comparison.measuring import WRITTEN, Found, Number, Options, Round, compare
from comparison.models import Words
from comparison.sides import Load

QUEEN, WORKER, LLAMA = "queen", "worker", "llama-server"
SMALL, MEDIUM, LARGE = "smollm2", "random-110m", "random-1.1b"
TRIES = 5
CONVERSATION = 1000
"""Tokens of a conversation's first message."""


@dataclass(frozen=True)
class Row:
    """A row of the table: `measure` takes where to put what it finds, the model and the options."""

    name: str
    what: str
    models: tuple[str, ...]
    numbers: tuple[Number, ...]
    measure: Callable[[Found, Path, Options], None]
    baseline: str = LLAMA


def _alike(
    measure: Round, slots: int, context: int, ways: tuple[str, ...] = (QUEEN,)
) -> Callable[[Found, Path, Options], None]:
    def run(found: Found, model: Path, options: Options) -> None:
        compare(found, Load(model, slots, context, options.threads), options, measure, ways)

    return run


async def _one_stream(way: Way, words: Words) -> dict[str, float]:
    answer = await ask(way, way.text(words.text(32), 128))
    return {"decode": answer.rate, WRITTEN: answer.tokens / 128}


async def _streams(count: int, way: Way, words: Words) -> dict[str, float]:
    answers = await together(way, [way.text(words.text(64), 64) for _ in range(count)])
    seconds = max(answer.last for answer in answers) - min(answer.asked for answer in answers)
    tokens = sum(answer.tokens for answer in answers)
    return {f"{count} streams": tokens / seconds, WRITTEN: tokens / (64 * count)}


async def _common_prefix(way: Way, words: Words) -> dict[str, float]:
    prefix = words.text(1000)
    answers = await together(way, [way.text(prefix + words.text(16), 4) for _ in range(8)])
    return {"last first token": max(answer.first for answer in answers)}


class Conversation:
    """What was said so far, and how it goes on."""

    def __init__(self, first: str, system: str = "") -> None:
        self.messages: list[Message] = [] if not system else [{"role": "system", "content": system}]
        self.say(first)

    async def turn(self, way: Way, most: int) -> float:
        """Have the next answer; returns the seconds to its first piece."""
        answer = await ask(way, way.chat(self.messages, most))
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer.first

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": f"Write a story about these words.{text}"})


async def _second_turn(way: Way, words: Words) -> dict[str, float]:
    conversation = Conversation(words.text(CONVERSATION))
    first = await conversation.turn(way, 32)
    conversation.say(words.text(32))
    return {"first turn": first, "second turn": await conversation.turn(way, 4)}


async def _ten_in_turn(way: Way, words: Words) -> dict[str, float]:
    conversations = [Conversation(words.text(CONVERSATION)) for _ in range(10)]
    times: list[float] = []
    for turn, conversation in itertools.product(range(3), conversations):
        if turn:
            conversation.say(words.text(32))
        times.append(await conversation.turn(way, 16))
    return {"third turn": sum(times[-10:]) / 10}


def _agent(turns: int, *, has_nonce: bool) -> Round:
    """An agent's loop. A nonce, as Claude Code sends it, is in the first block and another one in each request."""

    async def measure(way: Way, words: Words) -> dict[str, float]:
        tools = words.text(8000)
        conversation = Conversation(words.text(32), tools)
        seconds = 0.0
        for _ in range(turns):
            if has_nonce:
                header = f"x-anthropic-billing-header: cc_version=2.1.0; cch={secrets.token_hex(3)[:5]};"
                conversation.messages[0]["content"] = f"{header}\n{tools}"
            asked = await ask(way, way.chat(conversation.messages, 24))
            seconds += asked.last - asked.asked
            conversation.messages.append({"role": "assistant", "content": asked.text})
            conversation.say(words.text(40))
        return {"all turns": seconds}

    return measure


def _run_agent(found: Found, model: Path, options: Options, *, has_nonce: bool) -> None:
    measure = _agent(options.turns, has_nonce=has_nonce)
    compare(found, Load(model, 1, 12288, options.threads), options, measure, (QUEEN,))


async def _pause(way: Way, words: Words) -> dict[str, float]:
    for _ in range(TRIES):
        if (found := await _pause_of_one(way, words)) is not None:
            return found
    raise AssertionError(f"{TRIES} streams in turn ended before the long prompt had been read")


async def _pause_of_one(way: Way, words: Words) -> dict[str, float] | None:
    """Return nothing where the stream's text ended by itself meanwhile."""
    stream = await begin(way, way.text(words.text(32), 4000))
    await stream.until(24)
    before = len(stream.times)
    prompt = await ask(way, way.text(words.text(4000), 2))
    arrived = prompt.asked + prompt.first
    # The gap that is open when the first token comes is closed by the stream's next one.
    await stream.until(len(stream.times) + 1)
    if stream.is_over:
        return None
    stream.cancel()
    gaps = [later - sooner for sooner, later in itertools.pairwise(stream.times[before - 1 :]) if sooner < arrived]
    meanwhile = sum(prompt.asked <= moment <= arrived for moment in stream.times)
    return {"worst pause": max(gaps), "first token": prompt.first, "rate meanwhile": meanwhile / prompt.first}


def _less(name: str, most: float | None = None, **bounds: float) -> Number:
    return Number(name, "s", "less", bounds, most)


def _more(name: str, **bounds: float) -> Number:
    return Number(name, "tokens/s", "more", bounds)


ROWS = (
    Row(
        "decode",
        "one stream, 128 tokens",
        (SMALL, MEDIUM, LARGE),
        (_more("decode", worker=1.0, queen=0.98),),
        _alike(_one_stream, 1, 1024, (WORKER, QUEEN)),
    ),
    *(
        Row(
            f"streams-{count}",
            f"{count} streams, prompts of 64 words, 64 tokens each, with their prompts",
            (SMALL, MEDIUM),
            (_more(f"{count} streams", queen=1.05),),
            _alike(partial(_streams, count), count, 1024, (WORKER, QUEEN)),
        )
        for count in (8, 16)
    ),
    Row(
        "prefix",
        "8 clients, common prefix of 1,000 tokens, cold",
        (SMALL,),
        (_less("last first token", queen=6.0),),
        _alike(_common_prefix, 8, 2048),
    ),
    Row(
        "second-turn",
        "second turn of a conversation of 1,000 tokens, first token",
        (SMALL,),
        (_less("first turn"), _less("second turn", queen=1.0)),
        _alike(_second_turn, 8, 2048, (WORKER, QUEEN)),
    ),
    Row(
        "rotation",
        "ten conversations of 1,000 tokens in turn on four slots, first token of the third turn",
        (SMALL,),
        (_less("third turn", queen=5.0),),
        _alike(_ten_in_turn, 4, 2048),
    ),
    Row(
        "agent",
        "an agent's loop: 8,000 tokens of tools and system prompt, a nonce in the first block",
        (MEDIUM,),
        (_less("all turns", queen=3.0),),
        partial(_run_agent, has_nonce=True),
    ),
    Row(
        "agent-steady",
        "the same loop without the nonce",
        (MEDIUM,),
        (_less("all turns"),),
        partial(_run_agent, has_nonce=False),
    ),
    Row(
        "pause",
        "a stream while a prompt of 4,000 tokens arrives",
        (SMALL,),
        (
            _less("worst pause", most=0.3),
            _less("first token", queen=1 / 1.1),
            _more("rate meanwhile", queen=1.0),
        ),
        _alike(_pause, 2, 8192, (WORKER, QUEEN)),
    ),
)
