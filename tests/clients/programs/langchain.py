"""LangChain's client for OpenAI's interface, from PyPI: langchain-openai."""

from __future__ import annotations

from typing import Any, Literal

import openai
from jobs import MODEL, QUESTION, TOO_LONG, URL, WEATHER, run, weather
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]
    day: Literal["today", "tomorrow"]


def model(**options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=URL, api_key="sk-none", model=MODEL, max_retries=0, **({"temperature": 0} | options))


def whole() -> str:
    found = model(max_tokens=12).invoke("Tell me of a bee.")
    assert found.usage_metadata is not None
    assert found.usage_metadata["output_tokens"] == 12
    return repr(found.content)


def streamed() -> str:
    chunks = list(model(max_tokens=12, stream_usage=True).stream("Tell me of a bee."))
    assert [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    text = "".join(str(chunk.content) for chunk in chunks)
    assert repr(text) == whole()
    return repr(text)


def together() -> str:
    found = [answer.content for answer in model(max_tokens=6).batch(["A bee", "The sun", "A bee"])]
    assert found[0] == found[2]
    return repr(found)


def structured() -> str:
    found = model(max_tokens=100).with_structured_output(Weather).invoke("How is the weather in Rome?")
    assert isinstance(found, Weather)
    return repr(found)


def tool_loop() -> str:
    tool = {"title": "weather", "description": "Tells the weather.", **WEATHER}
    bound = model(max_tokens=200, temperature=1).bind_tools([tool], tool_choice="any", parallel_tool_calls=False)
    messages: list[Any] = [HumanMessage("How is the weather?")]
    results = []
    for _ in range(5):
        answer = bound.invoke(messages)
        (call,) = answer.tool_calls
        results.append(weather(**call["args"]))
        messages += [answer, ToolMessage(results[-1], tool_call_id=call["id"])]
    return f"{'; '.join(results)}; then {model(max_tokens=8).invoke(messages).content!r}"


def refusals() -> str:
    found: list[str] = []
    for error, code, messages, options in (
        (openai.NotFoundError, "model_not_found", QUESTION, {"model": "no-such-model"}),
        (openai.BadRequestError, "context_length_exceeded", TOO_LONG, {}),
    ):
        try:
            model(max_tokens=5).invoke(messages, **options)
        except error as exc:
            found.append(str(exc.code))
        assert found[-1:] == [code], (code, found)
    return ", ".join(found)


run(
    {
        "whole": ("invoke()", whole),
        "stream": ("stream() with usage", streamed),
        "together": ("batch() of three", together),
        "structured": ("with_structured_output()", structured),
        "tool loop": ("five rounds with bind_tools()", tool_loop),
        "errors": ("an unknown model, a full context", refusals),
    }
)
