"""Renders a model's chat template: the process that a worker keeps for it.

This is the hidden command `rbee chat-template`. A template comes from a file that anybody may have made, and could loop
for ever or fill the memory. So each rendering is done in jinja2's sandbox in a child of this process, forked from it
once the template is compiled, with limits: a child that breaks them is ended by the kernel, and nothing else is. One
child waits for the next request.

Its stdin is a socket, on which the worker sends one socket for each request: that holds the request, up to its end, and
takes the answer. The first is the template, which is compiled here. When the worker's end of stdin closes, all ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pprint
import resource
import select
import signal
import socket
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
from rbee.worker.chat.limits import MEMORY_BYTES, STARTED, WALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.chat.template import TemplateHabits

PAUSE_SECONDS: Final = 0.006
"""Before the next child is made, if no request waits for it: the one that works has the machine to itself meanwhile."""
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
            spare = _fork(control, templates, seconds)
            while (connection := _next(control)) is not None:
                with connection:
                    while not _hand_over(spare, connection):
                        spare = _fork(control, templates, seconds)
                select.select([control], [], [], PAUSE_SECONDS)
                spare = _fork(control, templates, seconds)
    # With all that is still being rendered, for nobody.
    os.killpg(0, signal.SIGKILL)
    return 0


def _fork(control: socket.socket, templates: Templates, seconds: int) -> socket.socket:
    """Return the socket on which a new child waits for its request: forking takes as long as rendering does."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        control.close()
        _warm_up()
        if (connection := _next(theirs)) is not None:
            _serve(connection, templates, seconds)
    finally:
        os._exit(0)


def _hand_over(spare: socket.socket, connection: socket.socket) -> bool:
    """Give a child its request; returns False where that has been killed."""
    with spare, contextlib.suppress(OSError):
        socket.send_fds(spare, [b"+"], [connection.fileno()])
        return True
    return False


def _warm_up() -> None:
    """Write on the pages that a rendering writes on, which are the parent's until then: that takes 1.5 ms."""
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

    def load() -> TemplateReply:
        loaded.append(Templates(msgspec.json.decode(_received(connection), type=ChatTemplate)))
        return TemplateLoaded()

    with connection:
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        _limit(resource.RLIMIT_CPU, seconds, soft_only=True)
        connection.sendall(STARTED)
        connection.sendall(answered(load))
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
    return loaded[0] if loaded else None


def _serve(connection: socket.socket, templates: Templates, seconds: int) -> None:
    """Answer one request, within limits: each is the kernel's to keep."""
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)
    connection.sendall(STARTED)
    data = _received(connection)
    connection.sendall(answered(lambda: templates.answer(data)))
    connection.shutdown(socket.SHUT_WR)  # at once: to end this process takes the kernel a millisecond


def _received(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def _limit(kind: int, most: int, *, soft_only: bool = False) -> None:
    _, hard = resource.getrlimit(kind)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (soft, hard if soft_only else soft))
