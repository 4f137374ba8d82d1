"""Finds out what a template puts around a prompt, and what messages it takes."""

from __future__ import annotations

import secrets
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import TemplateError

from rbee.wire.chat.template import ChatFrame, ChatTemplate
from rbee.worker.chat import environment, tool_text
from rbee.worker.chat.limits import MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Template

LITERAL: Final = "a  B é\n\n\"q\" 'r' \\ </think> {{ x }} {% y %} <b>&amp; ẞ"
"""What templates are known to change: case, white space, quotes, the end of a thought; most show it as it is."""
FAILURES: Final = (TemplateError, TypeError, AttributeError, KeyError, ValueError, IndexError, ArithmeticError)
"""What a template raises that does not take its variables; RecursionError and the like are no answer."""


class UnusableError(Exception):
    """The template does not frame a prompt, or writes too much."""


class Renderer:
    """A template, compiled, with the variables that do not depend on what is rendered."""

    def __init__(self, template: str, *, begin: str = "", end: str = "") -> None:
        self._template: Template = environment.make().from_string(template)
        self._tokens = {"bos_token": begin, "eos_token": end}

    def render(self, variables: dict[str, Any], size: int) -> str:
        """Return the text; `size` is how much the variables hold. Raises what the template raises, or UnusableError.

        Its own variables stand over those of the caller, but for the time, which that may set.
        """
        most = MAX_LENGTH + 10 * size
        pieces, written = [], 0
        now = environment.at(datetime.now().astimezone())
        for piece in self._template.generate(now | variables | self._tokens):
            written += len(piece)
            if written > most:
                raise UnusableError("it writes more than any template should")
            pieces.append(piece)
        return "".join(pieces)


def renderer_of(request: ChatTemplate) -> Renderer:
    return Renderer(request.template, begin=request.begin, end=request.end)


class Shape(NamedTuple):
    """A way to pass a message on; templates differ in what they take."""

    is_list: bool
    has_system: bool
    has_lists: bool

    def content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.is_list else text

    def variables(self, content: str) -> dict[str, Any]:
        user = {"role": "user", "content": self.content(content)}
        system = {"role": "system", "content": self.content("")}
        return {
            "messages": [system, user] if self.has_system else [user],
            "add_generation_prompt": True,
        } | tool_text.variables([], lists=self.has_lists)


def frame(renderer: Renderer) -> tuple[Shape, ChatFrame]:
    """Return the shape of messages that a template takes, and what it puts around one message of a user.

    Raises UnusableError, or one of FAILURES.
    """
    return next(_frames(renderer))


def text(renderer: Renderer, prompt: str) -> str:
    """Return a prompt as the template renders it. Raises as `frame` does."""
    shape, _ = frame(renderer)
    return renderer.render(shape.variables(prompt), len(prompt))


def _frames(renderer: Renderer) -> Iterator[tuple[Shape, ChatFrame]]:
    first: Exception | None = None
    for has_lists, has_system, is_list in product((False, True), repeat=3):
        shape = Shape(is_list, has_system, has_lists)
        try:
            yield shape, _frame(renderer, shape)
        except (UnusableError, *FAILURES) as exc:
            first = first or exc
    assert first is not None
    raise first


def _frame(renderer: Renderer, shape: Shape) -> ChatFrame:
    # Rendered around a word that nobody could know, so that no prompt ever goes through the template's hands.
    word = f"prompt{secrets.token_hex(16)}"

    def rendered(content: str) -> str:
        return renderer.render(shape.variables(content), len(content))

    written = rendered(word)
    before, found, after = written.partition(word)
    if word in after:
        raise UnusableError("it does not show the message exactly once")
    if not found:
        if rendered(word[::-1]) == written:
            raise UnusableError("it does not show the message")
        return ChatFrame(before="", after="", strips=False, changes=True)
    spaced = rendered(f" \n{word}\n ")
    strips = spaced == written
    is_faithful = strips or spaced == f"{before} \n{word}\n {after}"
    is_faithful = is_faithful and rendered(f"{word}{LITERAL}") == f"{before}{word}{LITERAL}{after}"
    return ChatFrame(before=before, after=after, strips=strips, changes=not is_faithful)
