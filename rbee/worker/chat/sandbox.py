"""Keeps the process that renders a model's chat template, and asks it (see `worker.chat.template`)."""

from __future__ import annotations

import array
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.adapters.daemon import process
from rbee.errors import WorkerFailedError
from rbee.wire.chat.template import TemplateLoaded, TemplateRefusal, TemplateReply
from rbee.worker.chat.limits import CPU_SECONDS, LENGTH_BYTES, MAX_LENGTH, MEMORY_BYTES, STARTED, WALL_SECONDS

if TYPE_CHECKING:
    from rbee.wire.chat.template import ChatTemplate, TemplateRequest

log = logging.getLogger(__name__)

RENDERINGS: Final = 4
"""At the same time; each may take as much memory as it may."""
SPARE: Final = 1
"""Children that are kept while nothing is rendered, of about 10 MB each."""
KEPT_BYTES: Final = 1_000_000
"""A child that has read or written more is not kept, since it holds on to memory."""
GRACE_SECONDS: Final = 2.0
"""Beyond what the process allows itself; and for its end."""
_TRIES: Final = 3
_REPLY: Final[msgspec.json.Decoder[TemplateReply]] = msgspec.json.Decoder(TemplateReply)
_NOT_STARTED: Final = "the process that renders the chat template could not be started"
_BROKEN: Final = TemplateRefusal(
    reason=f"it takes more than {CPU_SECONDS} s, or more memory than {MEMORY_BYTES / 1e9:g} GB", kind="limits"
)


class TemplateSandbox:
    """A template in a process of its own, which is started when it is asked and does not run; close it."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template: Final = template
        self._limiter: Final = trio.CapacityLimiter(RENDERINGS)
        self._starting: Final = trio.Lock()
        self._host: _Host | None = None
        self._idle: list[_Child] = []

    async def ask(self, request: TemplateRequest) -> TemplateReply:
        """Return the answer, or why the template gives none; cancelled, the rendering ends by itself.

        Raises WorkerFailedError where no process can be started.
        """
        data = msgspec.json.encode(request)
        async with self._limiter:
            for _ in range(_TRIES):
                try:
                    host = await self._running()
                except OSError as exc:
                    raise WorkerFailedError(f"{_NOT_STARTED}: {exc.strerror}") from exc
                if isinstance(host, TemplateRefusal):
                    return host
                while self._idle:
                    # One that has been killed, or has rendered for long enough, has not begun with it.
                    if (reply := await self._asked(self._idle.pop(), data)) is not None:
                        return reply
                if (child := await host.child()) and (reply := await self._asked(child, data)) is not None:
                    return reply
                # The process has died, or could not fork. What it was asked is asked again.
                log.warning("the process that renders the chat template does not answer, and is started anew")
                if self._host is host:
                    self._host = None
                await host.end()
        raise WorkerFailedError(_NOT_STARTED)

    async def _asked(self, child: _Child, data: bytes) -> TemplateReply | None:
        reply = None
        try:
            reply = await child.ask(data)
        finally:
            if child.is_good and reply is not None and len(self._idle) < SPARE and self._host is not None:
                self._idle.append(child)
            else:
                child.close()
        return reply

    async def _running(self) -> _Host | TemplateRefusal:
        async with self._starting:
            if self._host is not None and self._host.has_ended():
                self._close_idle()
                await self._host.end()
                self._host = None
            if self._host is None:
                host = await _Host.start()
                try:
                    reply = await host.load(self._template)
                except BaseException:
                    await host.end()
                    raise
                if not isinstance(reply, TemplateLoaded):
                    await host.end()
                    return reply if isinstance(reply, TemplateRefusal) else _BROKEN
                self._host = host
            return self._host

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def aclose(self) -> None:
        """End the process, and what is still being rendered."""
        host, self._host = self._host, None
        self._close_idle()
        if host is not None:
            await host.end()


class _Host:
    """The process, and the socket on which it takes those of its children; that closes with ours, however we end."""

    def __init__(self, running: trio.Process, control: trio.socket.SocketType) -> None:
        self._process = running
        self._control = control

    @classmethod
    async def start(cls) -> _Host:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                running = await process.start_quiet(["chat-template", str(CPU_SECONDS)], stdin=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return cls(running, trio.socket.from_stdlib_socket(ours))

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    async def end(self) -> None:
        """End it, shielded; it takes a moment, and what it renders ends with it."""
        self._control.close()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(GRACE_SECONDS):
                await self._process.wait()
            if self._process.poll() is None:
                process.kill_group(self._process.pid)
                await self._process.wait()

    async def load(self, template: ChatTemplate) -> TemplateReply | None:
        """Have the template compiled; None where the process has not begun with it."""
        if (compiler := await self.child()) is None:
            return None
        try:
            return await compiler.ask(msgspec.json.encode(template))
        finally:
            compiler.close()

    async def child(self) -> _Child | None:
        """Return a new child; None where the process has ended."""
        ours, theirs = socket.socketpair()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
        try:
            with theirs:
                await self._control.sendmsg([b"+"], [rights])
        except BaseException as exc:
            ours.close()
            if isinstance(exc, OSError):
                return None
            raise
        return _Child(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))


class _Child:
    """The socket of a process that renders; it ends when that is closed."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.is_good = False
        """Whether it has answered and may be asked again."""

    def close(self) -> None:
        self._stream.socket.close()

    async def ask(self, data: bytes) -> TemplateReply | None:
        """Return the answer to a request; None where the process has not begun with it."""
        self.is_good = False
        received = bytearray()
        with trio.move_on_after(WALL_SECONDS + GRACE_SECONDS):
            complete = await self._exchange(data, received, 6 * (MAX_LENGTH + 10 * len(data)))
            if not received.startswith(STARTED):
                return None
            if not complete:
                return _BROKEN
            self.is_good = len(data) + len(received) <= KEPT_BYTES
            return _decoded(received[len(STARTED) + LENGTH_BYTES :])
        return _BROKEN

    async def _exchange(self, data: bytes, received: bytearray, most: int) -> bool:
        """Send a request, and receive the answer; returns False where that is not whole, or is too long."""
        head = len(STARTED) + LENGTH_BYTES
        # Where it has ended before it had read all, what it has said is there still.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(len(data).to_bytes(LENGTH_BYTES) + data)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._stream.receive_some(1 << 20):
                received += piece
                if len(received) < head:
                    continue
                length = int.from_bytes(received[len(STARTED) : head])
                if length > most or len(received) >= head + length:
                    return len(received) == head + length
        return False


def _decoded(received: bytes | bytearray) -> TemplateReply:
    try:
        return _REPLY.decode(received)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _BROKEN
