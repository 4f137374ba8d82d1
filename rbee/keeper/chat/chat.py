"""Runs a chat: reads what is typed, does what it says, and has questions answered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rbee.errors import ConnectionTimeoutError, DrainingError, InvalidRequestError, RbeeError, UnloadFailedError
from rbee.keeper.chat import saved, slash
from rbee.keeper.chat.dialogue import Dialogue
from rbee.keeper.chat.line_input import LineInput
from rbee.keeper.chat.totals import Totals
from rbee.keeper.chat.turn import QuestionRun
from rbee.keeper.command_line import reference
from rbee.keeper.inference import explain_failure, summary, task
from rbee.keeper.output import columns
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.narrower_errors import PromptTooLongError
from rbee.wire import model_ref

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.chat.line_input import MessageInput
    from rbee.keeper.command_line.typed import ChatOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen

HISTORY: str = "chat_history"
"""The file in the state folder that holds what was typed."""


class _QueenEndedError(Exception):
    """The queen has ended in the middle of a chat: another one takes it on."""


class ChatSession:
    """One chat; its model is checked as soon as it is made. Raises InvalidRequestError or WrongValueError."""

    def __init__(self, options: ChatOptions, settings: Settings, terminal: Terminal) -> None:
        self._options = options
        self._settings = settings
        self._terminal = terminal
        self._dialogue = Dialogue(options.system or None)
        self._model = reference.chosen(options.model, settings)
        self._models = [model_ref.BUILTIN]
        """Names that the editor completes."""
        task.request(options, settings, model=self._model)
        self._totals = Totals()
        self._turn: QuestionRun | None = None
        self._saved: Path | None = None
        self._is_asked = False
        """Whether the last question is to be answered now."""
        self._input = self._make_input()

    def on_interrupt(self) -> bool:
        """Ctrl+C came as a signal; returns whether that ends an answer or a line, and not the chat."""
        if self._turn is not None and self._input.is_interactive:
            self._turn.stop()
            return True
        return self._input.on_interrupt()

    async def run(self, force: trio.Event) -> Result:
        """Talk until the user leaves; raises what ends a chat before anything was said, or that of a script."""
        with self._input.keeps_keys():
            return await self._run(force)

    async def _run(self, force: trio.Event) -> Result:
        self._greet()
        has_restarted = False
        while True:
            try:
                async with session.use(self._settings, self._terminal, force, options=self._options) as queen:
                    while self._is_asked or await self._read(queen):
                        await self._answer(queen, is_last_try=has_restarted)
                        has_restarted = False
                    return Result()
            except _QueenEndedError:
                has_restarted = True
            except UnloadFailedError as exc:
                return Result(failure=exc)
            except RbeeError as exc:
                if not self._dialogue.messages or not self._input.is_interactive:
                    raise
                # Without a queen the conversation can still be saved, and the question asked again.
                self._failed(exc)
                if not await self._read(None):
                    return Result()

    def _make_input(self) -> MessageInput:
        is_terminal = os.isatty(0) and os.isatty(1)
        if not is_terminal or os.environ.get("TERM", "dumb") in ("", "dumb"):
            return LineInput(self._terminal)
        from rbee.keeper.chat.editor import Editor  # with prompt_toolkit: 0.1 s

        history = self._settings.state_dir / HISTORY
        return Editor(history, lambda: self._models, lambda: self._note("Ctrl+D or /exit leaves"))

    def _greet(self) -> None:
        if self._input.is_interactive:
            self._note(f"Chat with {self._model}; /help shows what can be done, Ctrl+D leaves.")

    async def _read(self, queen: AttachedQueen | None) -> bool:
        """Read and do commands until there is a question to answer; returns False when the user leaves."""
        while True:
            self._terminal.settle()
            if (line := await self._input.read()) is None:
                return False
            try:
                typed = slash.read(line)
                if typed.command == "exit":
                    return False
                if typed.command is not None:
                    await self._do(typed.command, typed.text, queen)
                elif typed.text:
                    self._dialogue.ask(typed.text)
                    self._is_asked = True
            except (slash.UnknownCommandError, RbeeError) as exc:
                self._show_error(exc.message, exc.hint)
            if self._is_asked:
                return True

    async def _do(self, command: str, text: str, queen: AttachedQueen | None) -> None:
        match command:
            case "help":
                self._say(slash.help_text(self._terminal.room))
            case "model":
                await self._choose_model(text, queen)
            case "system":
                self._set_system(text)
            case "regenerate":
                self._is_asked = self._dialogue.take_back()
                if not self._is_asked:
                    self._note("Nothing was asked yet.")
            case "save":
                self._save(text)
            case "stats":
                self._say(self._totals.lines(self._model, self._dialogue.questions))
            case "clear":
                self._dialogue.clear()
                self._totals.in_context = 0
                self._note("The conversation is cleared.")

    async def _choose_model(self, text: str, queen: AttachedQueen | None) -> None:
        if text:
            self._model = reference.chosen(text, self._settings)
            self._note(f"{self._model} answers from now on.")
            return
        lines = [f"{self._model} answers; /model REF chooses another one."]
        if queen is not None:
            swarm = await queen.list_models(None, self._terminal.report)
            rows = {row.model_ref for node in swarm.nodes for row in node.models}
            aliases = {alias.name: alias.model for alias in await queen.known_aliases()}
            self._models = [model_ref.BUILTIN, *sorted(rows), *aliases]
            self._terminal.settle()
            lines += [f"  {name} → {aliases[name]}" if name in aliases else f"  {name}" for name in self._models]
        self._say("\n".join(lines))

    def _set_system(self, text: str) -> None:
        if text:
            self._dialogue.system = None if text.lower() == "none" else text
        said = self._dialogue.system
        self._say("There is no system prompt." if said is None else f"System prompt: {said}")

    def _save(self, file: str) -> None:
        if not file:
            raise InvalidRequestError("/save needs the name of a file", hint="for example /save bees.md")
        self._saved = saved.save(self._dialogue, file, self._model, known=self._saved)
        self._note(f"Saved in {self._saved}")

    async def _answer(self, queen: AttachedQueen, *, is_last_try: bool) -> None:
        """Have the last question answered. Raises _QueenEndedError, and where nobody sits there what went wrong."""
        conversation = self._dialogue.conversation()
        asked = task.request(self._options, self._settings, model=self._model, conversation=conversation)
        turn = self._turn = QuestionRun(queen, asked, self._settings, self._terminal)
        try:
            outcome = await turn.run(self._options.keep)
        except RbeeError as exc:
            may_have_ended = isinstance(exc, (ConnectionTimeoutError, DrainingError)) and not turn.has_output
            if may_have_ended and not is_last_try and await session.has_ended(self._settings, queen):
                raise _QueenEndedError from exc
            explain_failure.name_node(exc, self._settings)
            if not self._input.is_interactive:
                raise
            self._failed(exc)
            return
        finally:
            self._turn = None
        self._is_asked = False
        if outcome.text.strip():
            self._dialogue.answer(outcome.text, outcome.reasoning)
        if outcome.answered is None:
            self._note("Stopped; /regenerate asks again.\n")
            return
        handle, generation, done = outcome.answered
        self._totals.add(done, generation.usage)
        last_line = summary.last_line(asked, handle, done)
        self._note(f"{last_line}\n" if self._input.is_interactive else last_line)
        if not outcome.text.strip():
            self._note("The model has answered nothing; /regenerate asks again.")

    def _say(self, text: str) -> None:
        """Write what the user has asked for, which `--quiet` does not silence."""
        self._terminal.prompt(f"{self._wrapped(text)}\n")

    def _note(self, text: str) -> None:
        self._terminal.note(self._wrapped(text))

    def _show_error(self, message: str, hint: str | None) -> None:
        self._terminal.error(self._wrapped(message, len("rbee: ")), hint and self._wrapped(hint, len("hint: ")))

    def _wrapped(self, text: str, before: int = 0) -> str:
        """Return lines that are broken between words where the terminal is narrow; `before` stands before the first."""
        if (room := self._terminal.room) is None:
            return text
        return "\n".join(part for line in text.split("\n") for part in columns.wrap(line, max(room - before, 8)))

    def _failed(self, error: RbeeError) -> None:
        """Show why there is no answer; the question can be asked again."""
        self._is_asked = False
        if isinstance(error, PromptTooLongError):
            message = f"the conversation is longer than the model's context of {error.details.get('context')} tokens"
            more = error.hint.partition(", or ")[2] if error.hint else ""
            hint = "a shorter question takes this one's place; /clear forgets what was said, and /save keeps it"
            self._show_error(message, f"{hint}; or {more}" if more else hint)
            return
        again = "/regenerate asks again"
        self._show_error(error.message, f"{error.hint}; {again}" if error.hint else again)
