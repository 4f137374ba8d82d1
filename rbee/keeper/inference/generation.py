"""Runs one inference at a worker and prints its text as it comes."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from rbee.adapters.files import private
from rbee.adapters.http.sse_client import StreamLostError
from rbee.clients import worker as client
from rbee.clients.progress import progress_of
from rbee.errors import (
    AllSlotsBusyError,
    ConnectionTimeoutError,
    DrainingError,
    InferenceTimeoutError,
    InvalidApiKeyError,
    MissingApiKeyError,
    RbeeError,
    WorkerFailedError,
)
from rbee.narrower_errors import KeyRefusedError, TooManyTokensError
from rbee.wire.chat.answer import (
    AnswerEnded,
    ChoiceEnded,
    PromptRead,
    ReasoningDelta,
    TextDelta,
    ToolCallBegan,
    ToolCallDelta,
    Usage,
)
from rbee.wire.common import Narration
from rbee.wire.progress import Reading
from rbee.wire.worker import Done, FullContext, Timings, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.adapters.http.event_parser import Event
    from rbee.clients.worker import WorkerClient
    from rbee.keeper.inference.relayed import RelayedWorker
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.progress import ProgressEvent
    from rbee.wire.worker import InferenceRequest, StopReason

    Write = Callable[[str], Awaitable[None]]

KEPT_SECONDS: Final = 30 * 86_400.0
"""For texts that broke off: who wanted one has taken it by then."""
FIRST_SIGN_SECONDS: Final = 300.0
"""For the first sign that a prompt is being read; a worker of an earlier version gives none before its first token."""


async def nowhere(_: str) -> None:
    """Take a piece of text that nobody wants."""


@dataclass
class Generation:
    """One request at one worker, and what has come of it so far; `log` says where the worker's log is.

    A busy worker is asked again after each of `retries` (seconds); with None its refusal is raised as it is. The worker
    stays for `keep` seconds without a request, if that says so.

    What the model thinks before it answers a conversation goes to `on_reasoning`; its `usage` is known at the end.
    """

    worker: WorkerClient | RelayedWorker
    request: InferenceRequest
    settings: Settings
    log: str
    retries: tuple[float, ...] | None
    keep: float | None = None
    on_reasoning: Write = nowhere
    usage: Usage | None = None
    reasoning: str = ""
    _choice: ChoiceEnded | None = None
    _pieces: list[str] = field(default_factory=list)
    _tokens: int = 0
    _most: int | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def has_output(self) -> bool:
        """Whether anything has come, be it of the text or of what the model thinks before."""
        return self._tokens > 0

    async def run(self, terminal: Terminal, write: Write) -> Done:
        """Generate, passing each piece of text to `write`.

        However this is left before the end, the worker is told to stop first.
        """
        retries = iter(self.retries or ())
        while True:
            try:
                return await self._attempt(terminal, write)
            except AllSlotsBusyError as exc:
                if self.retries is None:
                    raise
                if (delay := next(retries, None)) is None:
                    raise AllSlotsBusyError(
                        f"all slots of the worker are still busy after {len(self.retries)} retries",
                        hint="wait for a running request to end, or use another node (--node)",
                        **exc.details,
                    ) from exc
                human = f"All slots of the worker are busy; retrying in {delay:g} s"
                terminal.narrate(Narration(actor="rbee-keeper", action="retry", target="llm-worker-rbee", human=human))
                await trio.sleep(delay)
            except TooManyTokensError as exc:
                asked = self.request.max_tokens
                if asked is UNSET or asked <= exc.most:
                    raise
                terminal.note(f"--max-tokens {asked} is more than the context holds: {exc.most} tokens, prompt and all")
                self.request.max_tokens = exc.most

    async def _attempt(self, terminal: Terminal, write: Write) -> Done:
        limits = self.settings.timeouts
        began = trio.current_time()
        end = began + (limits.inference or math.inf)
        try:
            with trio.move_on_at(min(end, began + max(FIRST_SIGN_SECONDS, limits.token))) as patience:
                async with self.worker.inference(self.request, keep=self.keep) as events:
                    async for event in events:
                        match self._decode(event):
                            case ReasoningDelta(text=piece):
                                self.reasoning += piece
                                self._tokens += 1
                                patience.deadline = end
                                await self.on_reasoning(piece)
                                patience.deadline = min(end, trio.current_time() + limits.token)
                            case Token(token=piece) | TextDelta(text=piece):
                                self._pieces.append(piece)
                                self._tokens += 1
                                patience.deadline = end  # a reader of ours may take its time (`| less`)
                                await write(piece)
                                patience.deadline = min(end, trio.current_time() + limits.token)
                            case Reading(most_tokens=most) as reading:
                                self._most = most
                                patience.deadline = min(end, trio.current_time() + limits.token)
                                terminal.report(reading)
                            case Done() as done:
                                return done
                            case AnswerEnded() as ended:
                                return self._done(ended)
                            case ChoiceEnded() as choice:
                                self._choice = choice
                            case PromptRead():
                                patience.deadline = min(end, trio.current_time() + limits.token)
                            case None | ToolCallBegan() | ToolCallDelta():
                                pass  # it was given no tools
                            case progress:
                                terminal.report(progress)
        except (AllSlotsBusyError, TooManyTokensError):
            raise
        except DrainingError as exc:
            if not self.has_output:
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
        elapsed = trio.current_time() - began
        raise InferenceTimeoutError(
            f"the inference was given up after {elapsed:.0f} s, with {self._progress()}",
            hint="fewer tokens (--max-tokens) or a smaller model take less time; "
            "`inference` and `token` under [timeouts] are the limits",
            elapsed_s=round(elapsed, 1),
            tokens=self._tokens,
        )

    def _decode(self, event: Event) -> Token | Done | AnswerEvent | ProgressEvent | None:
        if not self.request.is_typed:
            return client.decode(event)
        return progress_of(event) or client.decode_answer(event)

    def _done(self, ended: AnswerEnded) -> Done:
        """Return the end of the answer to a conversation, in the words of one to a prompt."""
        self.usage = usage = ended.usage
        reason: StopReason = "eos"
        if self._choice is not None and self._choice.reason == "length":
            reason = "length"
        elif self._choice is not None and self._choice.stop_string is not None:
            reason = "stop"
        full = ended.context_tokens
        return Done(
            total_tokens=usage.completion_tokens,
            duration_ms=ended.duration_ms,
            stop_reason=reason,
            timings=Timings(
                prompt_tokens=usage.prompt_tokens,
                prompt_ms=ended.prompt_ms,
                first_token_ms=ended.first_token_ms,
                text_ms=ended.text_ms,
                cached_tokens=usage.cached_tokens,
            ),
            context=UNSET if full is None else FullContext(tokens=full, trained_tokens=full),
        )

    def _progress(self) -> str:
        asked = self.request.max_tokens
        if asked is not UNSET:
            return f"{self._tokens} of {asked} tokens"
        return f"{self._tokens} of at most {self._most} tokens" if self._most else f"{self._tokens} tokens"

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
            _remove_old(folder)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(self.text.encode("utf-8", "replace"))
        except OSError as exc:
            return f"no file: {path} could not be written ({exc.strerror})"
        return path


def _remove_old(folder: Path) -> None:
    """Remove the texts of answers that broke off long ago."""
    for path in folder.glob("*.txt"):
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            path.unlink(missing_ok=True)
