"""Says for one request how its model's text is read, and what that may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from rbee.errors import InvalidRequestError
from rbee.worker.output.families import family_of
from rbee.worker.output.grammar import grammar_of
from rbee.worker.output.plain_text import PlainText
from rbee.worker.serving.grammar_trials import GrammarTrials

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.chat.conversation import Conversation
    from rbee.wire.worker import InferenceRequest
    from rbee.worker.chat.history import History
    from rbee.worker.engine.backend import Constraint, Vocabulary
    from rbee.worker.output.control_tokens import ControlTokens
    from rbee.worker.output.families import ModelFamily
    from rbee.worker.serving.answer_stream import AnswerParser


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How the answer to a request is read: `new_parser` makes a parser for the choice of a number.

    Each choice is held to `grammar`, if there is one. With `shows_control` the parser gets the names of control tokens.
    """

    new_parser: Callable[[int], AnswerParser]
    grammar: str | None = None
    shows_control: bool = False


class AnswerPlanner:
    """Makes the plans for one model."""

    def __init__(self, vocabulary: Vocabulary, controls: ControlTokens) -> None:
        self._vocabulary = vocabulary
        self._controls = controls
        self._trials = GrammarTrials()
        self._families: dict[str, ModelFamily] = {}

    async def plan(self, request: InferenceRequest, history: History | None) -> AnswerPlan:
        """Return the plan for a request; `history` is how its conversation was written, if it is one.

        Raises InvalidRequestError where its format, or the parameters of its tools, cannot be kept to.
        """
        stops = request.stop or ()
        conversation = request.conversation
        if conversation is UNSET:
            return AnswerPlan(lambda number: PlainText(number, stops))
        assert history is not None
        family = self._family_of(history.template)
        is_thinking = family.opens_thoughts(history.tail)
        tools = [] if conversation.tool_choice.mode == "none" else conversation.tools

        def new_parser(number: int) -> AnswerParser:
            return family.parser(
                tools,
                forced_open=is_thinking,
                choice=number,
                stops=stops,
                single_call=not conversation.parallel_tool_calls,
                # Who has to call something has no other way to go on: small models repeat a call without end.
                unrepeated=conversation.tool_choice.mode == "required",
            )

        may_think = family.syntax.reasoning.begin in history.template
        grammar = await self._grammar(conversation, family, is_thinking=is_thinking, may_think=may_think)
        return AnswerPlan(new_parser, grammar, shows_control=True)

    def _family_of(self, template: str) -> ModelFamily:
        if (known := self._families.get(template)) is None:
            known = self._families[template] = family_of(template)
        return known

    async def constraint(self, plan: AnswerPlan) -> Constraint | None:
        """Return what holds one choice to the plan's grammar, if there is one. Raises InvalidRequestError."""
        if plan.grammar is None:
            return None
        return await trio.to_thread.run_sync(self._vocabulary.constrained, plan.grammar)

    async def _grammar(
        self, conversation: Conversation, family: ModelFamily, *, is_thinking: bool, may_think: bool
    ) -> str | None:
        if not conversation.tools and conversation.format is None:
            return None
        build = partial(
            grammar_of, syntax=family.syntax, controls=self._controls, is_thinking=is_thinking, may_think=may_think
        )
        if (grammar := await trio.to_thread.run_sync(build, conversation)) is None:
            return None
        if conversation.format is not None or conversation.tool_choice.mode == "required":
            return await self._trials.safe(grammar)
        if any(tool.strict for tool in conversation.tools):
            return await self._trials.safe(grammar)
        try:
            grammar = await self._trials.safe(grammar)
            await trio.to_thread.run_sync(self._vocabulary.constrained, grammar)
        except InvalidRequestError:
            return None  # nobody has asked for arguments that are valid in any case
        return grammar
