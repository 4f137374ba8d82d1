"""Carries out what the pool decides about worker processes, and reports what comes of it."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters import announce, http, process, tail, tokens
from rbee.clients import worker_control
from rbee.errors import RbeeError, SpawnFailedError

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.hive.record import Worker
    from rbee.wire.common import Narration
    from rbee.wire.worker import WorkerStatus

log = logging.getLogger(__name__)

STREAM_PAUSE = 1.0
"""Seconds between two tries to hold a worker's event stream."""


def log_file(settings: Settings, worker_id: str) -> Path:
    """Return where a worker's log is."""
    return settings.logs_dir / f"worker-{worker_id}.log"


def command(
    settings: Settings, worker: Worker, hive_url: str, host: str, advertise: str | None, *, ephemeral: bool = False
) -> list[str]:
    """Return the command that starts `worker`; its key is not in it. `ephemeral` makes it end when its stdin closes."""
    spec = worker.spec
    options: dict[str, object] = {
        "--id": worker.id,
        "--model-ref": spec.model_ref,
        "--model-path": spec.path,
        "--backend": spec.backend,
        "--device": spec.device,
        "--slots": spec.slots,
        "--context": spec.context,
        "--threads": settings.worker.threads,
        "--host": host,
        "--advertise": advertise,
        "--port-from": settings.worker.port_from,
        "--hive-url": hive_url,
        "--config": settings.file,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    if ephemeral:
        given.append("--ephemeral")
    return [*(settings.worker.command or (*process.program(), "worker")), *given]


class Child:
    """A worker's process while it runs."""

    def __init__(self, child: trio.Process) -> None:
        self._child = child
        identity = process.identify(child.pid)
        # A process that has ended already is still ours to reap; nothing is ever sent to it.
        self.identity = identity or process.Identity(child.pid, 0, process.boot_id())

    def send(self, number: signal.Signals) -> None:
        """Signal the process, unless it has ended."""
        process.send_signal(self.identity, number)

    async def listen(self, tell: Callable[[Narration], None]) -> None:
        """Pass on what the worker announces until it is ready or says why not; raises its error."""
        await announce.listen(self._child, tell)

    async def wait(self) -> str:
        """Return how the process ended, in words, once it has."""
        code = await self._child.wait()
        if self._child.stdin is not None:
            await self._child.stdin.aclose()
        return process.describe_end(code)


class Adopted:
    """The process of a worker that an earlier hive started: not our child, so its exit status is not ours to know."""

    def __init__(self, identity: process.Identity) -> None:
        self.identity = identity

    def send(self, number: signal.Signals) -> None:
        """Signal the process, unless it has ended."""
        process.send_signal(self.identity, number)

    async def wait(self) -> str:
        """Return once the process has ended."""
        await process.wait_gone(self.identity)
        return "it ended, and only the hive that started it could have learnt how"


async def launch(settings: Settings, worker: Worker, arguments: list[str], token: str, *, ephemeral: bool) -> Child:
    """Start the worker's process and give it its key on stdin. Raises SpawnFailedError.

    With `ephemeral` that pipe stays open: the worker ends when it closes, which it does however we end.
    """
    key = tokens.worker_key(token, worker.id)
    secret = msgspec.json.encode({"key": key}) + b"\n"
    try:
        log_path = log_file(settings, worker.id)
        return Child(await process.start(arguments, log=log_path, stdin=secret, hold_stdin=ephemeral))
    except OSError as exc:
        raise SpawnFailedError(f"the worker's process cannot be started: {exc.strerror}") from exc


def with_last_words(settings: Settings, worker: Worker, reason: str) -> str:
    """Add to how a worker ended the last line of its log that was meant for people."""
    lines = [line for line in tail.last_lines(log_file(settings, worker.id)) if line.startswith("rbee: ")]
    return f"{reason}: {lines[-1].removeprefix('rbee: ')}" if lines else reason


async def follow(worker: Worker, token: str, changed: Callable[[WorkerStatus], None]) -> None:
    """Hold the worker's event stream for as long as the worker runs; cancelled by the caller at its end."""
    assert worker.url is not None
    key = tokens.worker_key(token, worker.id)
    while True:
        with suppress(http.StreamLostError, RbeeError):
            await worker_control.follow(worker.url, key, changed)
        await trio.sleep(STREAM_PAUSE)


async def is_alive(worker: Worker, patience: float) -> bool:
    """Ask a worker for its health; returns whether this very worker answered within `patience` seconds."""
    assert worker.url is not None
    try:
        with trio.fail_after(patience):
            return await worker_control.health(worker.url) == worker.id
    except (trio.TooSlowError, RbeeError) as exc:
        log.warning("worker %s did not answer its health check: %s", worker.id, exc or "timeout")
        return False


async def ask_to_end(worker: Worker, token: str, patience: float) -> bool:
    """Post a shutdown; returns whether the worker accepted within `patience` seconds."""
    assert worker.url is not None
    try:
        with trio.fail_after(patience):
            await worker_control.shut_down(worker.url, tokens.worker_key(token, worker.id))
    except (trio.TooSlowError, RbeeError) as exc:
        log.warning("worker %s did not accept its shutdown: %s", worker.id, exc)
        return False
    return True
