"""Renders a model's chat template, and prints what it puts around a prompt as one JSON object.

This is the hidden command `rbee chat-template`, with the template on stdin: it comes from a file that anybody may have
made, and could loop for ever or fill the memory. So it runs in a process of its own, with limits, in jinja2's sandbox:
once for each load of a model, and once for each prompt where the template changes what it is given.
"""

from __future__ import annotations

import resource
import secrets
import sys
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from jinja2 import TemplateError

from rbee.wire.chat.template import ChatFrame, ChatTemplate, ChatText
from rbee.worker.chat import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Template

CPU_SECONDS: Final = 5
MEMORY_BYTES: Final = 1 << 30
MAX_LENGTH: Final = 100_000
"""Characters that a template may write around a prompt."""
LITERAL: Final = "a  B é\n\n\"q\" 'r' \\ </think> {{ x }} {% y %} <b>&amp; ẞ"
"""What templates are known to change: case, white space, quotes, the end of a thought; most show it as it is."""


class UnusableError(Exception):
    """The template does not frame a prompt."""


class Shape(NamedTuple):
    """A way to pass a message on; templates differ in what they take."""

    is_list: bool
    has_system: bool
    has_lists: bool

    def variables(self, content: str) -> dict[str, Any]:
        passed = [{"type": "text", "text": content}] if self.is_list else content
        user = {"role": "user", "content": passed}
        system = {"role": "system", "content": [{"type": "text", "text": ""}] if self.is_list else ""}
        none: Any = [] if self.has_lists else None
        return {
            "messages": [system, user] if self.has_system else [user],
            "tools": none,
            "documents": none,
        } | ({"functions": "", "datetime": ""} if self.has_lists else {})


def frame(request: ChatTemplate) -> ChatFrame:
    """Return what the template puts around one message of a user. Raises UnusableError or TemplateError."""
    return next(_frames(_Renderer(request)))[1]


def text(request: ChatTemplate) -> str:
    """Return the prompt of a request as the template renders it. Raises as `frame` does."""
    renderer = _Renderer(request)
    shape, _ = next(_frames(renderer))
    return renderer.render(shape, request.prompt or "")


class _Renderer:
    def __init__(self, request: ChatTemplate) -> None:
        self._template: Template = environment.make().from_string(request.template)
        self._tokens = {"bos_token": request.begin, "eos_token": request.end}

    def render(self, shape: Shape, content: str) -> str:
        written = self._template.render(**shape.variables(content), **self._tokens, add_generation_prompt=True)
        if len(written) > MAX_LENGTH + 10 * len(content):
            raise UnusableError("it writes more than any template should")
        return written


def _frames(renderer: _Renderer) -> Iterator[tuple[Shape, ChatFrame]]:
    """Yield the shape of messages that the template takes, with the frame. Raises why it takes none."""
    first: Exception | None = None
    for has_lists, has_system, is_list in product((False, True), repeat=3):
        shape = Shape(is_list, has_system, has_lists)
        try:
            yield shape, _frame(renderer, shape)
        except (UnusableError, TemplateError, TypeError, AttributeError, KeyError, ValueError) as exc:
            first = first or exc
    assert first is not None
    raise first


def _frame(renderer: _Renderer, shape: Shape) -> ChatFrame:
    # Rendered around a word that nobody could know, so that no prompt ever goes through the template's hands.
    word = f"prompt{secrets.token_hex(16)}"
    written = renderer.render(shape, word)
    before, found, after = written.partition(word)
    if word in after:
        raise UnusableError("it does not show the message exactly once")
    if not found:
        if renderer.render(shape, word[::-1]) == written:
            raise UnusableError("it does not show the message")
        return ChatFrame(before="", after="", strips=False, changes=True)
    spaced = renderer.render(shape, f" \n{word}\n ")
    strips = spaced == written
    is_faithful = strips or spaced == f"{before} \n{word}\n {after}"
    is_faithful = is_faithful and renderer.render(shape, f"{word}{LITERAL}") == f"{before}{word}{LITERAL}{after}"
    return ChatFrame(before=before, after=after, strips=strips, changes=not is_faithful)


def _refusal(reason: str) -> bytes:
    # Half of a pair of surrogates, which a template can write, is no UTF-8.
    return msgspec.json.encode({"reason": reason[:300].encode("utf-8", "backslashreplace").decode()})


def main(_argv: list[str]) -> int:
    """Run the command; returns the exit code, 1 with the reason on stdout where the template cannot be used."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ChatTemplate)
    try:
        found = frame(request) if request.prompt is None else ChatText(text=text(request))
        printed, code = msgspec.json.encode(found), 0
    except MemoryError:
        printed, code = _refusal("it takes more memory than any template should"), 1
    except UnusableError as exc:
        printed, code = _refusal(str(exc)), 1
    except Exception as exc:  # noqa: BLE001 (a template's code may raise anything)
        printed, code = _refusal(f"{type(exc).__name__}: {exc}"), 1
    sys.stdout.buffer.write(printed + b"\n")
    return code
