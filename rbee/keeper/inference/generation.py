"""Runs one inference at a worker and prints its text as it comes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from rbee.adapters.files import private
from rbee.adapters.http.sse_client import StreamLostError
from rbee.clients import worker as client
from rbee.errors import (
    AllSlotsBusyError,
    ConnectionTimeoutError,
    DrainingError,
    InferenceTimeoutError,
    InvalidApiKeyError,
    KeyRefusedError,
    MissingApiKeyError,
    RbeeError,
    WorkerFailedError,
)
from rbee.wire.common import Narration
from rbee.wire.worker import Done, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.clients.worker import WorkerClient
    from rbee.keeper.inference.relayed import RelayedWorker
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.worker import InferenceRequest


@dataclass
class Generation:
    """One request at one worker, and what has come of it so far; `log` says where the worker's log is."""

    worker: WorkerClient | RelayedWorker
    request: InferenceRequest
    settings: Settings
    log: str
    _pieces: list[str] = field(default_factory=list)
    _tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    async def run(self, terminal: Terminal, write: Callable[[str], Awaitable[None]]) -> Done:
        """Generate, passing each piece of text to `write`.

        A busy worker is asked again. However this is left before the end, the worker is told to stop first.
        """
        delays = self.settings.timeouts.busy_delays
        retries = iter(delays)
        while True:
            try:
                return await self._attempt(terminal, write)
            except AllSlotsBusyError as exc:
                if (delay := next(retries, None)) is None:
                    raise AllSlotsBusyError(
                        f"all slots of the worker are still busy after {len(delays)} retries",
                        hint="wait for a running request to end, or use another node (--node)",
                        **exc.details,
                    ) from exc
                human = f"All slots of the worker are busy; retrying in {delay:g} s"
                terminal.narrate(Narration(actor="rbee-keeper", action="retry", target="llm-worker-rbee", human=human))
            await trio.sleep(delay)

    async def _attempt(self, terminal: Terminal, write: Callable[[str], Awaitable[None]]) -> Done:
        limits = self.settings.timeouts
        end = trio.current_time() + limits.inference
        try:
            with trio.move_on_at(end) as patience:
                async with self.worker.inference(self.request) as events:
                    async for event in events:
                        match client.decode(event):
                            case Token(token=piece):
                                self._pieces.append(piece)
                                self._tokens += 1
                                await write(piece)
                                # Only from here on: a long prompt may take longer than a token.
                                patience.deadline = min(end, trio.current_time() + limits.token)
                            case Done() as done:
                                return done
                            case Narration() as narration:
                                terminal.narrate(narration)
        except AllSlotsBusyError:
            raise
        except DrainingError as exc:
            if not self._pieces:
                raise
            # Some text is out already, and another worker would begin anew.
            raise self._lost(exc) from exc
        except (StreamLostError, ConnectionTimeoutError, WorkerFailedError) as exc:
            raise self._lost(exc) from exc
        except (InvalidApiKeyError, MissingApiKeyError) as exc:
            raise KeyRefusedError(
                f"authentication failed: the worker at {self.worker.url} does not accept the key that its hive gave",
                hint=f"the worker may be of an older start: `rbee down`, then try again; its log is {self.log}",
                host=self.worker.url,
            ) from exc
        except BaseException:
            await self._cancel()
            raise
        if not patience.cancelled_caught:
            raise self._lost(None)
        await self._cancel()
        elapsed = trio.current_time() - (end - limits.inference)
        raise InferenceTimeoutError(
            f"the inference was given up after {elapsed:.0f} s, with {self._progress()}",
            hint="fewer tokens (--max-tokens) or a smaller model take less time; "
            "`inference` and `token` under [timeouts] are the limits",
            elapsed_s=round(elapsed, 1),
            tokens=self._tokens,
        )

    def _progress(self) -> str:
        return f"{self._tokens} of {self.request.max_tokens} tokens"

    async def _cancel(self) -> None:
        """Tell the worker to stop, and wait a bounded time until it has."""
        with trio.move_on_after(self.settings.timeouts.acknowledge, shield=True):
            # A worker that does not answer has lost our connection too, and stops for that.
            with contextlib.suppress(RbeeError):
                await self.worker.cancel(self.request.request_id or "")

    def _lost(self, exc: Exception | None) -> WorkerFailedError:
        """Describe a generation that broke off, and keep what there was of its text."""
        reason = f" ({exc.message})" if isinstance(exc, RbeeError) else ""
        message = f"the stream closed unexpectedly{reason}, with {self._progress()}"
        if self._pieces:
            message += f"\nthe text so far is in {self._save()}"
        return WorkerFailedError(
            message, hint=f"try again; why the worker failed is in its log: {self.log}", tokens=self._tokens
        )

    def _save(self) -> Path | str:
        """Write the text so far into a file that only the user can read; returns its path."""
        folder = self.settings.state_dir / "partial"
        path = folder / f"{self.request.request_id}.txt"
        try:
            private.make_private(folder)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(self.text.encode("utf-8", "replace"))
        except OSError as exc:
            return f"no file: {path} could not be written ({exc.strerror})"
        return path
