"""`rbee why`: tells the story of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.errors import NotFoundError
from rbee.keeper.commands.administration.requests import NONE
from rbee.keeper.output import render
from rbee.keeper.output.columns import pad
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.requests import milliseconds
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import WhyOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.administration.requests import RequestInfo, RequestStory


def run(options: WhyOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return what happened to a request, the latest if none is named, each step with its time from its arrival."""

    async def find(queen: QueenClient) -> RequestStory | None:
        if options.request is not None:
            return await queen.story(options.request)
        found = await queen.requests(1)  # and those that run
        return await queen.story(max(found, key=lambda one: one.began_unix).id) if found else None

    if (story := session.ask(options, settings, terminal, find)) is None:
        raise NotFoundError(NONE)
    notes = () if options.request is not None else ("This is the latest request; `rbee requests` lists all.",)
    return Result(data=msgspec.to_builtins(story), text=_text(story), notes=notes)


def _text(story: RequestStory) -> str:
    request = story.request
    facts = {
        "request": request.id,
        "when": moment(request.began_unix),
        "what": request.route,
        "who": f"{request.caller or 'not let in'}, from {request.address}",
        "model": request.model,
        "worker": None if request.worker is None else f"{request.worker} on {request.node}",
        "tokens": _tokens(request),
        "times": _times(request),
        "end": request.end or "it runs",
    }
    lines = [f"{name:<8} {render.clean(value)}" for name, value in facts.items() if value]
    steps = [(milliseconds(step.ms), render.clean(step.human)) for step in story.steps]
    width = max((len(at) for at, _ in steps), default=0)
    return "\n".join([*lines, "", *(f"{pad(at, width, right=True)}  {human}" for at, human in steps)]).rstrip()


def _tokens(request: RequestInfo) -> str | None:
    if request.prompt_tokens is None:
        return None
    cached = f" ({request.cached_tokens} of them cached)" if request.cached_tokens else ""
    return f"{request.prompt_tokens} of the prompt{cached}, {request.tokens} written"


def _times(request: RequestInfo) -> str | None:
    found = {"queue": request.queue_ms, "first token": request.first_token_ms, "in all": request.total_ms}
    return ", ".join(f"{name} {milliseconds(ms)}" for name, ms in found.items() if ms is not None) or None
