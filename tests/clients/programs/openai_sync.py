"""The openai package from PyPI, with its ordinary client."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
from jobs import MODEL, QUESTION, TOO_LONG, URL, WEATHER, run, weather
from pydantic import BaseModel

client = openai.OpenAI(base_url=URL, api_key="sk-none", max_retries=0)
chat = client.chat.completions
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]

ENDLESS: Any = {"type": "json_schema", "json_schema": {"name": "endless", "schema": {"$ref": "#"}}}


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]
    day: Literal["today", "tomorrow"]


def whole() -> str:
    found = chat.create(model=MODEL, messages=QUESTION, max_tokens=12, temperature=0)
    (choice,) = found.choices
    assert choice.finish_reason == "length"
    assert found.usage is not None
    assert found.usage.completion_tokens == 12
    assert found.usage.total_tokens == found.usage.prompt_tokens + 12
    assert found._request_id
    assert choice.message.content
    return repr(choice.message.content)


def streamed() -> str:
    chunks = list(
        chat.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(not chunk.choices[0].delta.role for chunk in chunks[1:] if chunk.choices)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert not chunks[-1].choices
    assert chunks[-1].usage is not None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert repr(text) == whole(), "the same text as in one piece"
    return f"{len(chunks)} chunks, {text!r}"


def helper() -> str:
    # It takes an answer that is cut off for an error, so this one ends at a stop string.
    with chat.stream(model=MODEL, messages=QUESTION, max_tokens=12, temperature=0, stop=[" "]) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == text
    return repr(text)


def parsed() -> str:
    found = chat.parse(model=MODEL, messages=QUESTION, max_tokens=100, response_format=Weather)
    assert isinstance(found.choices[0].message.parsed, Weather)
    return repr(found.choices[0].message.parsed)


def parsed_stream() -> str:
    with chat.stream(model=MODEL, messages=QUESTION, max_tokens=100, response_format=Weather) as stream:
        snapshots = [event.parsed for event in stream if event.type == "content.delta"]
        found = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(found, Weather)
    return f"{len(snapshots)} pieces, {found!r}"


def tool_stream() -> str:
    tool = openai.pydantic_function_tool(Weather, name="weather")
    with chat.stream(
        model=MODEL, messages=QUESTION, max_tokens=200, tools=[tool], tool_choice="required", parallel_tool_calls=False
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert len(done) == 1
    assert final.finish_reason == "tool_calls"
    assert isinstance(done[0].parsed_arguments, Weather)
    return f"{done[0].name}({done[0].arguments})"


def tool_loop() -> str:
    messages = list(QUESTION)
    called = []
    for number in range(5):
        found = chat.create(
            model=MODEL,
            messages=messages,
            tools=TOOLS,
            tool_choice="required" if number % 2 else {"type": "function", "function": {"name": "weather"}},
            parallel_tool_calls=False,
            max_tokens=200,
            seed=number,
        ).choices[0]
        assert found.finish_reason == "tool_calls"
        messages.append(found.message)
        (call,) = found.message.tool_calls or ()
        result = weather(**json.loads(call.function.arguments))
        called.append(result)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    last = chat.create(model=MODEL, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=8).choices[0]
    assert not last.message.tool_calls
    assert last.message.content
    return f"{'; '.join(called)}; then {last.message.content!r}"


def several() -> str:
    found = chat.create(
        model=MODEL, messages=QUESTION, n=2, max_tokens=6, logprobs=True, top_logprobs=2, temperature=1, seed=7
    )
    for index, choice in enumerate(found.choices):
        assert choice.index == index
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in content)
        assert b"".join(bytes(token.bytes or ()) for token in content).decode() == choice.message.content
    assert len(found.choices) == 2
    return repr([choice.message.content for choice in found.choices])


def stop() -> str:
    text = chat.create(model=MODEL, messages=QUESTION, max_tokens=12, temperature=0).choices[0].message.content or ""
    word = text.split()[3]
    found = chat.create(model=MODEL, messages=QUESTION, max_tokens=12, temperature=0, stop=[word]).choices[0]
    assert found.finish_reason == "stop"
    assert found.message.content == text.partition(word)[0]
    return f"{found.message.content!r} before {word!r}"


def text() -> str:
    found = client.completions.create(model=MODEL, prompt=["A bee", "The sun"], max_tokens=5, temperature=0, echo=True)
    assert [choice.index for choice in found.choices] == [0, 1]
    assert all(choice.text.startswith(start) for choice, start in zip(found.choices, ("A bee", "The sun"), strict=True))
    stream = client.completions.create(model=MODEL, prompt="A bee", max_tokens=5, temperature=0, stream=True)
    joined = "".join(chunk.choices[0].text for chunk in stream)
    assert "A bee" + joined == found.choices[0].text
    return repr([choice.text for choice in found.choices])


def models() -> str:
    found = [model.id for model in client.models.list()]
    one = client.models.retrieve(MODEL)
    assert one.id == MODEL
    assert one.model_extra is not None
    assert one.model_extra["context_length"] > 0
    return f"{found}, context {one.model_extra['context_length']}"


def refusals() -> str:
    found: list[tuple[str | None, bool]] = []
    for error, code, asked in (
        (openai.NotFoundError, "model_not_found", {"model": "no-such-model", "messages": QUESTION}),
        (openai.BadRequestError, "context_length_exceeded", {"model": MODEL, "messages": TOO_LONG}),
        (openai.BadRequestError, "invalid_value", {"model": MODEL, "messages": QUESTION, "temperature": 9}),
        (openai.BadRequestError, "invalid_value", {"model": MODEL, "messages": QUESTION, "response_format": ENDLESS}),
    ):
        for stream in (False, True):
            try:
                chat.create(**asked, stream=stream)  # type: ignore[call-overload]
            except error as exc:
                found.append((exc.code, exc.request_id is not None))
            assert found[-1:] == [(code, True)], (code, stream, found)
    return ", ".join(dict(found))


def without_key() -> str:
    """A request that came through a proxy is not our own user's, whatever key it shows."""
    try:
        client.with_options(default_headers={"Via": "1.1 proxy"}).models.list()
    except openai.AuthenticationError as exc:
        return f"{exc.code}: {exc.body['message'] if isinstance(exc.body, dict) else exc.body}"
    raise AssertionError("it was let in")


run(
    {
        "whole": ("an answer of 12 tokens", whole),
        "stream": ("the same, streamed, with usage", streamed),
        "helper": ("chat.completions.stream()", helper),
        "parse": ("parse() into a pydantic model", parsed),
        "parse, streamed": ("stream() into a pydantic model", parsed_stream),
        "tool, streamed": ("stream() with a pydantic tool", tool_stream),
        "tool loop": ("five rounds of calls and results", tool_loop),
        "choices": ("n=2 with logprobs", several),
        "stop": ("a stop string", stop),
        "completions": ("two prompts with echo; one streamed", text),
        "models": ("the list, and one", models),
        "errors": ("an unknown model, a full context, a wrong field, an odd schema", refusals),
        "no key": ("the list, through a proxy with a wrong key", without_key),
    }
)
