"""The openai package from PyPI, with its asynchronous client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import openai
from jobs import MODEL, QUESTION, URL, run
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]


def with_client(job: Callable[[openai.AsyncOpenAI], Awaitable[str]]) -> Callable[[], str]:
    async def work() -> str:
        async with openai.AsyncOpenAI(base_url=URL, api_key="sk-none", max_retries=0) as client:
            return await job(client)

    return lambda: asyncio.run(work())


async def together(client: openai.AsyncOpenAI) -> str:
    asked = [
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=8, temperature=0) for _ in range(6)
    ]
    texts = [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]
    assert len(texts) == 6
    assert all(texts)
    return repr(texts[0])


async def streamed(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces)
    return repr("".join(pieces))


async def parsed(client: openai.AsyncOpenAI) -> str:
    async with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, max_tokens=60, response_format=Weather
    ) as stream:
        found = (await stream.get_final_completion()).choices[0].message.parsed
    assert isinstance(found, Weather)
    return repr(found)


async def left(client: openai.AsyncOpenAI) -> str:
    """Whoever leaves a stream has its slot free for others."""

    async def leave() -> None:
        stream: Any = await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break

    await asyncio.gather(*(leave() for _ in range(8)))
    return "8 streams left after their first word; then " + await streamed(client)


run(
    {
        "together": ("six answers at the same time", with_client(together)),
        "stream": ("a streamed answer", with_client(streamed)),
        "parse": ("stream() into a pydantic model", with_client(parsed)),
        "left": ("streams that are left behind", with_client(left)),
    }
)
