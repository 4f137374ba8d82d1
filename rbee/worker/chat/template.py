"""Renders a model's chat template: the process that a worker keeps for it.

This is the hidden command `rbee chat-template`. A template comes from a file that anybody may have made, and could loop
for ever or fill the memory. So a rendering is done in jinja2's sandbox in a child of this process, forked from it once
the template is compiled, with limits for each rendering: a child that breaks them is ended by the kernel, and nothing
else is. A child renders one request after another: what it has rendered before has warmed its pages and its code, which
takes a new one three times as long as the rendering.

Its stdin is a socket, on which the worker sends one socket for each child: on that come the requests, and go the
answers, each behind its length in bytes. The first is for the template, which is compiled here. A child ends when the
worker's end of its socket closes; when that of stdin closes, all ends.
"""

from __future__ import annotations

import gc
import math
import os
import pprint
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Final, Literal

import jinja2.constants
import jinja2.debug
import msgspec

from rbee.wire.chat.template import (
    ChatTemplate,
    ChatText,
    ProbeTemplate,
    RenderConversation,
    RenderPrompt,
    TemplateFound,
    TemplateLoaded,
    TemplateRefusal,
    TemplateReply,
    TemplateRequest,
)
from rbee.worker.chat import framing
from rbee.worker.chat.environment import TemplateRefusedError
from rbee.worker.chat.framing import Renderer, UnusableError
from rbee.worker.chat.habits import habits
from rbee.worker.chat.limits import LENGTH_BYTES, MEMORY_BYTES, STARTED, WALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.chat.template import TemplateHabits

CHILD_CPU_SECONDS: Final = 60
"""That a child may take for all its renderings."""
_STDIN: Final = 0
_REQUEST: Final[msgspec.json.Decoder[TemplateRequest]] = msgspec.json.Decoder(TemplateRequest)
_PRELOADED: Final = (jinja2.constants, jinja2.debug, pprint)
"""Imported by jinja2 where they are used, which is where no file can be opened."""
_WARM: Final = Renderer(
    "{% macro shown(text, times=1) %}{{ text }}{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}"
    "{% if m.role == 'user' and m.content is string and not m.content.startswith('<') %}{% set ns.n = loop.index0 %}"
    "{{ shown(m.role, times=2) }}{% elif m.tool_calls %}{% for call in m.tool_calls %}{{ call.function | tojson }}"
    "{% endfor %}{% endif %}{{ m['content'] | trim + '</x>'.split('</')[-1].strip('\n') }}{% endfor %}"
    "{{ tools | tojson(indent=2) }}{{ strftime_now('%Y') }}"
)
_WARM_REQUEST: Final = msgspec.json.encode(
    RenderConversation(
        variables={
            "messages": 25
            * [
                {"role": "user", "content": 2000 * "a"},
                {
                    "role": "assistant",
                    "content": 2000 * "a",
                    "tool_calls": [{"function": {"name": "a", "arguments": {}}}],
                },
            ],
            "tools": [{"type": "function"}],
        }
    )
)


class Templates:
    """The templates of one model, compiled."""

    def __init__(self, loaded: ChatTemplate) -> None:
        self._loaded = loaded
        self._own = framing.renderer_of(loaded)
        self._for_tools = self._own
        if loaded.tools_template is not None:
            self._for_tools = Renderer(loaded.tools_template, begin=loaded.begin, end=loaded.end)

    def answer(self, data: bytes) -> TemplateReply:
        """Return the answer to a request. Raises whatever a template may raise."""
        request = _REQUEST.decode(data)
        if isinstance(request, ProbeTemplate):
            return self._probe()
        if isinstance(request, RenderPrompt):
            return ChatText(text=framing.text(self._own, request.prompt))
        return ChatText(text=self._conversation(request, len(data)))

    def _conversation(self, request: RenderConversation, size: int) -> str:
        renderer = self._for_tools if request.tools else self._own
        return renderer.render(request.variables, size)

    def _probe(self) -> TemplateFound:
        shape, frame = framing.frame(self._own)
        found = TemplateFound(frame=frame, habits=habits(self._own, shape, self._loaded.template))
        if self._loaded.tools_template is not None:
            found.tools_habits = self._tools_habits(self._loaded.tools_template)
        return found

    def _tools_habits(self, source: str) -> TemplateHabits | None:
        try:
            shape, _ = framing.frame(self._for_tools)
            return habits(self._for_tools, shape, source)
        except (UnusableError, *framing.FAILURES):
            return None


def answered(work: Callable[[], TemplateReply]) -> bytes:
    """Return the answer that some work comes to, or why there is none."""
    try:
        return msgspec.json.encode(work())
    except TemplateRefusedError as exc:
        return _refusal(str(exc), "refuses")
    except (MemoryError, OverflowError):
        return _refusal("it takes more memory than any template should", "limits")
    except UnusableError as exc:
        return _refusal(str(exc), "limits")
    except Exception as exc:  # noqa: BLE001 (a template's code may raise anything)
        return _refusal(f"{type(exc).__name__}: {exc}", "fails")


def _refusal(reason: str, kind: Literal["refuses", "fails", "limits"]) -> bytes:
    # Half of a pair of surrogates, which a template can write, is no UTF-8.
    clean = reason[:300].encode("utf-8", "backslashreplace").decode()
    return msgspec.json.encode(TemplateRefusal(reason=clean, kind=kind))


def main(argv: list[str]) -> int:
    """Run the command until its stdin ends; its argument is how many seconds of a processor a rendering may take."""
    seconds = int(argv[0])
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    with socket.socket(fileno=os.dup(_STDIN)) as control:
        os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)  # the children have no way to the worker
        if (templates := _load(control, seconds)) is not None:
            _warm_up()
            # The children have no garbage to look for, and no pages to copy for it.
            gc.collect()
            gc.freeze()
            gc.disable()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel keeps nothing of those that end
            while (connection := _next(control)) is not None:
                with connection:
                    _fork(control, connection, templates, seconds)
    # With all that is still being rendered, for nobody.
    os.killpg(0, signal.SIGKILL)
    return 0


def _fork(control: socket.socket, connection: socket.socket, templates: Templates, seconds: int) -> None:
    if os.fork():
        return
    try:
        control.close()
        _serve(connection, templates, seconds)
    finally:
        os._exit(0)


def _warm_up() -> None:
    """Have the language's code run before there are children: it gets faster with use, and they begin with it so."""
    request = _REQUEST.decode(_WARM_REQUEST)
    assert isinstance(request, RenderConversation)
    msgspec.json.encode(ChatText(text=_WARM.render(request.variables, len(_WARM_REQUEST))))


def _next(control: socket.socket) -> socket.socket | None:
    """Return the connection of the next request; None when there are no more."""
    _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _load(control: socket.socket, seconds: int) -> Templates | None:
    """Compile the template, in this process: with its limits, which end it."""
    if (connection := _next(control)) is None:
        return None
    loaded: list[Templates] = []

    def load(data: bytes) -> TemplateReply:
        loaded.append(Templates(msgspec.json.decode(data, type=ChatTemplate)))
        return TemplateLoaded()

    with connection:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        _answer(connection, load, seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    return loaded[0] if loaded else None


def _serve(connection: socket.socket, templates: Templates, seconds: int) -> None:
    """Answer requests, each within limits that are the kernel's to keep, until there are no more."""
    _limit(resource.RLIMIT_CPU, CHILD_CPU_SECONDS)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)
    while time.process_time() < CHILD_CPU_SECONDS - seconds and _answer(connection, templates.answer, seconds):
        gc.collect()


def _answer(connection: socket.socket, work: Callable[[bytes], TemplateReply], seconds: int) -> bool:
    """Answer the next request within limits; returns False where there is none."""
    if not (length := _received(connection, LENGTH_BYTES)):
        return False
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds, soft_only=True)
    connection.sendall(STARTED)
    data = _received(connection, int.from_bytes(length))
    reply = answered(lambda: work(data))
    connection.sendall(len(reply).to_bytes(LENGTH_BYTES))
    connection.sendall(reply)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def _received(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes; none where they do not come."""
    pieces = []
    while size and (piece := connection.recv(min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"" if size else b"".join(pieces)


def _limit(kind: int, most: int, *, soft_only: bool = False) -> None:
    _, hard = resource.getrlimit(kind)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (soft, hard if soft_only else soft))
