"""LiteLLM's client, from PyPI: as for OpenAI's interface at another address, and as for vLLM."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
from jobs import MODEL, QUESTION, TOO_LONG, URL, WEATHER, run, weather

litellm.suppress_debug_info = True
HERE: dict[str, Any] = {"api_base": URL, "api_key": "sk-none", "num_retries": 0, "max_retries": 0}


def asked(prefix: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"model": f"{prefix}/{MODEL}", "messages": QUESTION, "max_tokens": 12, "temperature": 0, **HERE, **fields}


def whole() -> str:
    found = litellm.completion(**asked())
    assert found.usage.completion_tokens == 12
    assert found.choices[0].finish_reason == "length"
    return repr(found.choices[0].message.content)


def text_of(prefix: str) -> str:
    stream = litellm.completion(**asked(prefix, stream=True, stream_options={"include_usage": True}))
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def streamed() -> str:
    text = text_of("openai")
    assert repr(text) == whole()
    return repr(text)


def tool_loop() -> str:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    messages = list(QUESTION)
    results = []
    for number in range(5):
        choice = litellm.completion(
            **asked(
                messages=messages,
                tools=tools,
                tool_choice="required",
                parallel_tool_calls=False,
                max_tokens=200,
                temperature=1,
                seed=number,
            )
        ).choices[0]
        assert choice.finish_reason == "tool_calls"
        messages.append(choice.message)
        (call,) = choice.message.tool_calls
        results.append(weather(**json.loads(call.function.arguments)))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": results[-1]})
    return "; ".join(results)


def text() -> str:
    found = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt="A bee", max_tokens=5, temperature=0, **HERE
    )
    return repr(found.choices[0].text)


def refusals() -> str:
    found: list[str] = []
    for error, fields in (
        (litellm.NotFoundError, {"model": "openai/no-such-model"}),
        (litellm.ContextWindowExceededError, {"messages": TOO_LONG}),
        (litellm.BadRequestError, {"temperature": 9}),
    ):
        try:
            litellm.completion(**asked(**fields))
        except error as exc:
            found.append(type(exc).__name__)
        assert found[-1:] == [error.__name__], (error, found)
    return ", ".join(found)


async def _together() -> list[Any]:
    return await asyncio.gather(*(litellm.acompletion(**asked()) for _ in range(4)))


def together() -> str:
    found = [answer.choices[0].message.content for answer in asyncio.run(_together())]
    assert all(found)
    return repr(found)


run(
    {
        "whole": ("completion(), as openai/", whole),
        "stream": ("the same, streamed", streamed),
        "hosted_vllm": ("streamed, as hosted_vllm/", lambda: repr(text_of("hosted_vllm"))),
        "tool loop": ("five rounds of calls and results", tool_loop),
        "completions": ("text_completion()", text),
        "errors": ("an unknown model, a full context, a wrong field", refusals),
        "async": ("four acompletion() at the same time", together),
    }
)
