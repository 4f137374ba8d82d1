"""Keeps the process that renders a model's chat template, and asks it (see `worker.chat.template`)."""

from __future__ import annotations

import array
import logging
import socket
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.adapters.daemon import process
from rbee.errors import WorkerFailedError
from rbee.wire.chat.template import TemplateLoaded, TemplateRefusal, TemplateReply
from rbee.worker.chat.limits import CPU_SECONDS, MAX_LENGTH, MEMORY_BYTES, STARTED, WALL_SECONDS

if TYPE_CHECKING:
    from rbee.wire.chat.template import ChatTemplate, TemplateRequest

log = logging.getLogger(__name__)

RENDERINGS: Final = 4
"""At the same time; each may take as much memory as it may."""
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
                if (reply := await host.ask(data)) is not None:
                    return reply
                # The process has died, or could not fork. What it was asked is asked again.
                log.warning("the process that renders the chat template does not answer, and is started anew")
                if self._host is host:
                    self._host = None
                await host.end()
        raise WorkerFailedError(_NOT_STARTED)

    async def _running(self) -> _Host | TemplateRefusal:
        async with self._starting:
            if self._host is not None and self._host.has_ended():
                await self._host.end()
                self._host = None
            if self._host is None:
                host = await _Host.start()
                try:
                    reply = await host.ask(msgspec.json.encode(self._template))
                except BaseException:
                    await host.end()
                    raise
                if not isinstance(reply, TemplateLoaded):
                    await host.end()
                    return reply if isinstance(reply, TemplateRefusal) else _BROKEN
                self._host = host
            return self._host

    async def aclose(self) -> None:
        """End the process, and what is still being rendered."""
        host, self._host = self._host, None
        if host is not None:
            await host.end()


class _Host:
    """The process, and the socket on which it takes requests; that closes with ours, however we end."""

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

    async def ask(self, data: bytes) -> TemplateReply | None:
        """Return the answer to a request; None where the process has not begun with it."""
        ours, theirs = socket.socketpair()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
            try:
                with theirs:
                    await self._control.sendmsg([b"+"], [rights])
            except OSError:
                return None
            with trio.move_on_after(WALL_SECONDS + GRACE_SECONDS):
                received = await _exchange(stream, data, 6 * (MAX_LENGTH + 10 * len(data)))
                if not received.startswith(STARTED):
                    return None
                return _decoded(received[len(STARTED) :])
        return _BROKEN


async def _exchange(stream: trio.SocketStream, data: bytes, most: int) -> bytes:
    """Send a request, and return the answer up to its end; what comes beyond `most` bytes is not read."""
    received = bytearray()
    try:
        await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass  # it has ended before it had read all; what it has said is there still
    try:
        while piece := await stream.receive_some(1 << 20):
            received += piece
            if len(received) > most:
                break
    except trio.BrokenResourceError:
        pass
    return bytes(received)


def _decoded(received: bytes) -> TemplateReply:
    try:
        return _REPLY.decode(received)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _BROKEN
