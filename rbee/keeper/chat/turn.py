"""Has one question of a chat answered, and shows the answer while it comes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from rbee.adapters.logs.json_log import correlate
from rbee.concurrency.background import open_background
from rbee.keeper.chat.answer_view import view
from rbee.keeper.chat.keys import unechoed
from rbee.keeper.inference import in_line
from rbee.narrower_errors import WorkerDrainingError

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.inference.generation import Generation
    from rbee.keeper.inference.in_line import Answered
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskRequest
    from rbee.wire.worker import Done

MAX_ATTEMPTS: Final = 3
"""Workers that may end before they have generated anything."""


class TurnOutcome(NamedTuple):
    """What came of a turn: an answer that is complete, or the text and the reasoning of one that was stopped."""

    answered: Answered | None
    text: str
    reasoning: str


class QuestionRun:
    """One question; `stop` ends its answer, and what there is of it stays."""

    def __init__(self, queen: AttachedQueen, task: TaskRequest, settings: Settings, terminal: Terminal) -> None:
        self._queen = queen
        self._task = task
        self._settings = settings
        self._terminal = terminal
        self._generation: Generation | None = None
        self._scope = trio.CancelScope()

    @property
    def has_output(self) -> bool:
        """Whether anything of an answer has come."""
        return self._generation is not None and self._generation.has_output

    def stop(self) -> None:
        self._scope.cancel()

    async def run(self, keep: float | None) -> TurnOutcome:
        """Return the outcome. Raises the error that has ended it."""
        answered = None
        with unechoed(lasts=True), self._scope:
            answered = await self._answered(keep)
        self._terminal.settle()
        generation = self._generation
        if generation is None:
            return TurnOutcome(None, "", "")
        return TurnOutcome(answered, generation.text, generation.reasoning)

    async def _answered(self, keep: float | None) -> Answered:
        task = self._task
        for attempt in range(1, MAX_ATTEMPTS + 1):
            correlate(task.request_id)
            try:
                return await in_line.generate(
                    self._queen, task, self._settings, self._terminal, keep=keep, follow=self._follow
                )
            except WorkerDrainingError:
                # It was told to end, and nothing has come of it: another one may answer.
                if attempt == MAX_ATTEMPTS or self.has_output:
                    raise
            task = msgspec.structs.replace(task, request_id=str(uuid.uuid4()))
        raise AssertionError

    async def _follow(self, generation: Generation) -> Done:
        self._generation = generation
        shown = view(self._terminal)
        generation.on_reasoning = shown.reasoning
        try:
            async with open_background() as nursery:
                nursery.start_soon(shown.keep_fresh)
                done = await generation.run(self._terminal, shown.text)
        except BaseException:
            with trio.move_on_after(self._settings.timeouts.acknowledge, shield=True):
                await shown.cut()
            raise
        await shown.end()
        return done
