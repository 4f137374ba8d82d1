"""Answers as typed events over a real socket, on the real engine."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from rbee.adapters.http import sse_client
from rbee.errors import CancelledError
from rbee.wire.chat.answer import (
    AnswerEnded,
    AnswerEvent,
    ChoiceEnded,
    PromptRead,
    TextDelta,
    ToolCallBegan,
    ToolCallDelta,
)
from rbee.wire.chat.conversation import (
    ChatMessage,
    Conversation,
    Grammar,
    JsonSchema,
    Regex,
    TextPart,
    Tool,
    ToolChoice,
)
from rbee.wire.worker import InferenceRequest
from tests.conftest import ROOT
from tests.kit.models import make
from tests.kit.worker_serving import Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OWN_ID = "00000000-0000-4000-8000-00000000000a"
OTHER_ID = "00000000-0000-4000-8000-00000000000b"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "tags": {"enum": ["a", "b"]}},
    "required": ["name", "tags"],
    "additionalProperties": False,
}
WEATHER = Tool(name="weather", description="How warm it is", parameters=SCHEMA)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose text is known."""
    return make(tmp_path_factory.mktemp("models") / "chain.gguf")


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that would write anything."""
    return make(tmp_path_factory.mktemp("models") / "random.gguf", random=True, chat_template=CHATML)


@pytest.fixture
async def worker(random: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])  # the program that renders templates
    async with serving(random, slots=2) as worker:
        yield worker


async def answer(worker: Serving, **fields: Any) -> list[AnswerEvent]:
    """Return the events of an answer but for its progress."""
    asked = InferenceRequest(**{"max_tokens": 200, "temperature": 1.5, "seed": 3, **fields})
    async with sse_client.events(worker.client, "POST", "/v1/inference", body=asked) as stream:
        return [sse_client.decode_event(event.data, AnswerEvent) async for event in stream if event.name == "message"]


def text_of(events: list[AnswerEvent], choice: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.choice == choice)


def ends(events: list[AnswerEvent]) -> list[ChoiceEnded]:
    return [event for event in events if isinstance(event, ChoiceEnded)]


def asking(**fields: Any) -> Conversation:
    return Conversation(messages=[ChatMessage(role="user", content=[TextPart(text="Say it.")])], **fields)


async def test_the_order_of_events(chain: Path) -> None:
    async with serving(chain) as worker:
        found = await answer(worker, prompt="A", typed=True, max_tokens=5, temperature=0)
        plain = await worker.text("A", max_tokens=5)
    first, *deltas, choice, last = found
    assert isinstance(first, PromptRead)
    assert isinstance(last, AnswerEnded)
    assert text_of(deltas) == plain
    assert choice == ChoiceEnded(reason="length")
    assert (first.tokens, last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 2, 5)
    assert 0 < last.prompt_ms <= last.first_token_ms <= last.duration_ms
    assert last.context_tokens is None


async def test_the_end_of_the_context_is_told(chain: Path) -> None:
    async with serving(chain, context=64) as worker:
        *_, choice, last = await answer(worker, prompt="A" * 60, typed=True, max_tokens=50, temperature=0)
    assert isinstance(last, AnswerEnded)
    assert (choice, last.context_tokens) == (ChoiceEnded(reason="length"), 64)


async def test_choices_come_one_after_the_other_and_are_counted_together(worker: Serving) -> None:
    found = await answer(worker, conversation=asking(), choices=3, max_tokens=7, logit_bias={2: -100})
    assert [(end.choice, end.reason) for end in ends(found)] == [(0, "length"), (1, "length"), (2, "length")]
    assert isinstance(last := found[-1], AnswerEnded)
    assert last.usage.completion_tokens == 21
    assert len({text_of(found, number) for number in range(3)}) == 3, "one seed is not the same answer three times"
    assert worker.status.now.on_wire().slots_available == 2


async def test_a_request_can_be_cancelled_while_its_next_choice_waits_for_a_slot(chain: Path) -> None:
    asked = InferenceRequest(prompt="A", typed=True, choices=2)
    async with serving(chain, slots=1) as worker:
        first = await worker.service.begin(asked, OWN_ID)
        async with first.job:
            await first.job.cancel()
        other = await worker.service.begin(InferenceRequest(prompt="A", logit_bias={2: -100}), OTHER_ID)
        with trio.fail_after(10):
            async with other.job, trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(CancelledError):
                        await worker.service.begin_next(asked, OWN_ID, first.read, 1)

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await worker.service.cancel(OWN_ID)
            await other.job.cancel()


async def test_a_stop_string_ends_one_choice_and_the_next_begins(chain: Path) -> None:
    async with serving(chain, slots=1) as worker:
        whole = await worker.text("A", max_tokens=30)
        stop = whole[10:13]
        found = await answer(
            worker, prompt="A", typed=True, choices=2, stop=[stop], max_tokens=30, temperature=0, echo=True
        )
    expected = "A" + whole[: whole.index(stop)]
    assert [text_of(found, number) for number in (0, 1)] == [expected, expected]
    assert ends(found) == [ChoiceEnded(choice=number, reason="stop", stop_string=stop) for number in (0, 1)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_written_is_valid_whatever_the_model_would_say(worker: Serving, seed: int) -> None:
    found = await answer(worker, conversation=asking(format=JsonSchema(schema=SCHEMA)), seed=seed)
    value = json.loads(text_of(found))
    assert set(value) == {"name", "tags"}
    assert len(value["name"]) <= 8
    assert value["tags"] in ("a", "b")
    assert ends(found) == [ChoiceEnded(reason="stop")]


async def test_other_forms_of_an_answer(worker: Serving) -> None:
    for form, allowed in (
        (Regex(pattern="(yes|no)"), {"yes", "no"}),
        (Grammar(syntax="lark", text='start: "maybe" | "never"'), {"maybe", "never"}),
        (Grammar(syntax="gbnf", text='root ::= ("red" | "blue") "!"'), {"red!", "blue!"}),
    ):
        assert text_of(await answer(worker, conversation=asking(format=form))) in allowed


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_required_call_is_made(worker: Serving, seed: int) -> None:
    asked = asking(tools=[WEATHER], tool_choice=ToolChoice(mode="required"), parallel_tool_calls=False)
    found = await answer(worker, conversation=asked, seed=seed)
    began = [event for event in found if isinstance(event, ToolCallBegan)]
    assert [(call.index, call.name) for call in began] == [(0, "weather")]
    arguments = "".join(event.arguments for event in found if isinstance(event, ToolCallDelta))
    assert set(json.loads(arguments)) == {"name", "tags"}
    assert ends(found) == [ChoiceEnded(reason="tool_calls")]
    assert text_of(found).strip() == ""


async def test_a_call_that_is_required_is_not_repeated_without_end(worker: Serving) -> None:
    only = {
        "type": "object",
        "properties": {"name": {"const": "a"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    asked = asking(tools=[Tool(name="weather", parameters=only)], tool_choice=ToolChoice(mode="required"))
    found = await answer(worker, conversation=asked, max_tokens=2000, logit_bias={2: -100})  # it would never end
    assert len([event for event in found if isinstance(event, ToolCallBegan)]) == 1
    arguments = "".join(event.arguments for event in found if isinstance(event, ToolCallDelta))
    assert json.loads(arguments) == {"name": "a"}
    assert ends(found) == [ChoiceEnded(reason="tool_calls")]


async def test_probabilities_are_the_models_own(worker: Serving) -> None:
    found = await answer(worker, conversation=asking(), logprobs=3, max_tokens=6, logit_bias={2: -100})
    told = [one for event in found if isinstance(event, TextDelta) for one in event.logprobs]
    assert len(told) == 6
    for one in told:
        assert len(one.top) == 3
        assert [other.logprob for other in one.top] == sorted((other.logprob for other in one.top), reverse=True)
        assert one.chosen.logprob <= one.top[0].logprob
        assert sum(math.exp(other.logprob) for other in one.top) < 1.0001
    assert b"".join(one.chosen.data for one in told).decode("utf-8", "replace") == text_of(found)
    bare = await answer(worker, conversation=asking(), logprobs=0, max_tokens=2, logit_bias={2: -100})
    assert [one.top for event in bare if isinstance(event, TextDelta) for one in event.logprobs] == [[], []]


@pytest.mark.parametrize("prompt", ["AB!C" * 20, "A"])
async def test_the_tokens_of_an_echoed_prompt_come_with_their_probabilities(chain: Path, prompt: str) -> None:
    async with serving(chain, slots=2) as worker:
        found = await answer(
            worker, prompt=prompt, typed=True, raw=True, echo=True, logprobs=1, choices=2, max_tokens=2, temperature=0
        )
        tokens = found[0].tokens if isinstance(found[0], PromptRead) else 0
        alone = await answer(worker, prompt=prompt[:3], typed=True, raw=True, logprobs=1, max_tokens=1, temperature=0)
    for number in (0, 1):
        assert text_of(found, number).startswith(prompt)
        deltas = [event for event in found if isinstance(event, TextDelta) and event.choice == number]
        told = [one for event in deltas for one in event.logprobs]
        assert b"".join(one.chosen.data for one in told).decode() == text_of(found, number)
        assert len(told) == tokens - 1 + 2, "the token that begins the prompt is none of its text"
        assert told[0].chosen.logprob is None
        assert all(one.chosen.logprob is not None and len(one.top) == 1 for one in told[1:])
        if len(prompt) > 1:
            (after,) = [one for event in alone if isinstance(event, TextDelta) for one in event.logprobs]
            # The token behind the third letter, read in the middle of a prompt, is as likely as after the prompt's end.
            assert told[3].top[0].token == after.top[0].token
            assert told[3].top[0].logprob == pytest.approx(after.top[0].logprob, abs=0.01)


async def test_more_tokens_than_there_is_room_for_are_as_many_as_there_is(chain: Path) -> None:
    async with serving(chain, context=64) as worker:
        found = await answer(worker, prompt="A" * 10, typed=True, max_tokens=128_000, temperature=0)
    assert isinstance(last := found[-1], AnswerEnded)
    assert (last.usage.prompt_tokens + last.usage.completion_tokens, last.context_tokens) == (64, 64)


async def test_a_bias_decides(worker: Serving) -> None:
    found = await answer(worker, conversation=asking(), logit_bias={70: 100}, max_tokens=4, temperature=0)
    assert text_of(found) == "C" * 4  # the models of the tests have a token for each byte, from 3 on


async def test_what_was_said_already_is_said_less(chain: Path) -> None:
    """The chain would say the same for ever; the penalties outweigh that."""
    async with serving(chain) as worker:
        asked = {"prompt": "A", "typed": True, "max_tokens": 60, "temperature": 0}
        plain = text_of(await answer(worker, **asked))
        for penalty in ("frequency_penalty", "presence_penalty"):
            assert text_of(await answer(worker, **asked, **{penalty: 0.0})) == plain


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"conversation": asking(format=JsonSchema(schema={"$ref": "#/nowhere"}))}, "conversation.format"),
        (
            {"conversation": asking(format=JsonSchema(schema={"type": "array", "minItems": 10**9}))},
            "conversation.format",
        ),
        ({"conversation": asking(format=Regex(pattern="("))}, "conversation.format"),
        ({"conversation": asking(format=Grammar(syntax="lark", text="start: nowhere"))}, "conversation.format"),
        ({"conversation": asking(format=Grammar(syntax="gbnf", text="root ::= ["))}, "conversation.format"),
        ({"conversation": asking(tool_choice=ToolChoice(mode="required"))}, "tool_choice"),
        ({"conversation": asking(tools=[WEATHER], tool_choice=ToolChoice(names=["other"]))}, "tool_choice"),
        ({"tokens": [1, 100_000], "typed": True}, "tokens"),
        ({"prompt": "A", "suffix": "B", "typed": True}, "suffix"),
        ({"prompt": "A", "typed": True, "stream": False}, "stream"),
        ({"prompt": "A", "typed": True, "logit_bias": {100_000: 1.0}}, "logit_bias"),
    ],
    ids=[
        "schema",
        "endless list",
        "regex",
        "lark",
        "gbnf",
        "no tool",
        "another tool",
        "tokens",
        "suffix",
        "whole",
        "bias",
    ],
)
async def test_what_cannot_be_done_is_refused_and_costs_no_slot(
    worker: Serving, fields: dict[str, Any], field: str
) -> None:
    body = msgspec.json.encode(InferenceRequest(**{"max_tokens": 200, **fields}))
    refused = await worker.client.post("/v1/inference", content=body)
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, field), "before a stream begins"
    await worker.wait_state("idle")
    assert worker.status.now.on_wire().slots_available == 2
    assert text_of(await answer(worker, conversation=asking(format=Regex(pattern="ok")))) == "ok"
