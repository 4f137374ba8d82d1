"""The chat's line editor, by prompt_toolkit: several lines, completion, and a history that outlives the chat."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from rbee.adapters.files import private
from rbee.keeper.chat import slash
from rbee.keeper.chat.keys import unechoed
from rbee.keeper.chat.line_input import PROMPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.formatted_text import AnyFormattedText
    from prompt_toolkit.key_binding import KeyPressEvent

MOST_HISTORY_BYTES: Final = 500_000
"""Of the file, half of which is left when a chat finds it larger."""
MOST_ENTRY_CHARACTERS: Final = 10_000
"""Of an entry; files that were pasted would push out all else."""
_ESCAPE_SECONDS: Final = 0.1
"""After Esc, for the rest of a key: Alt+Enter is Esc and Enter."""


class Editor:
    """A terminal at which messages are typed; `models()` are the names that `/model` completes.

    prompt_toolkit has an event loop of its own, asyncio's, and so it runs in a thread.
    """

    is_interactive = True

    def __init__(self, history: Path, models: Callable[[], Sequence[str]], on_empty: Callable[[], object]) -> None:
        self._on_empty = on_empty
        self._is_reading = threading.Event()
        output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
        # Nobody asks where the cursor is: some terminals owe the answer, and others give it to whoever reads next.
        output.enable_cpr = False
        self._session: PromptSession[str] = PromptSession(
            [("bold", PROMPT)],
            multiline=True,
            prompt_continuation="  ",
            placeholder=self._placeholder,
            history=_history(history),
            completer=_ChatCompleter(models),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=_bindings(),
            enable_history_search=False,
            reserve_space_for_menu=0,
            output=output,
        )
        self._session.app.timeoutlen = self._session.app.ttimeoutlen = _ESCAPE_SECONDS

    def _placeholder(self) -> AnyFormattedText:
        """Return what stands where nothing is typed, until the line is over: it would stay on the screen."""
        return [] if self._session.app.is_done else [("ansibrightblack", "a message, or /help")]

    async def read(self) -> str | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_when_cancelled)
            with trio.CancelScope(shield=True):
                typed = await trio.to_thread.run_sync(self._read)
            nursery.cancel_scope.cancel()
        return typed

    def keeps_keys(self) -> AbstractContextManager[None]:
        return unechoed()

    def on_interrupt(self) -> bool:
        return False  # in the editor Ctrl+C is a key

    def _read(self) -> str | None:
        self._is_reading.set()
        try:
            text = self._session.prompt()
        except KeyboardInterrupt:
            if not self._session.default_buffer.text:
                self._on_empty()
            return ""
        except EOFError:
            return None
        finally:
            self._is_reading.clear()
        return text.encode("utf-8", "replace").decode()

    async def _leave_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            loop = self._session.app.loop
            if self._is_reading.is_set() and loop is not None:
                with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                    loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        with contextlib.suppress(Exception):  # it has its result already
            self._session.app.exit(exception=EOFError)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif slash.is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def _break(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-z")
    def _suspend(_: KeyPressEvent) -> None:
        run_in_terminal(_stop)

    return bindings


def _stop() -> None:
    """Stop the process, as Ctrl+Z does, and return when it goes on.

    The signal is this thread's own: one for the process may be taken by another thread, and a moment later. Then the
    terminal would be the editor's again before the shell has it, which leaves it as the shell wants it.
    """
    signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)


class _ChatCompleter(Completer):
    """Completes commands, and what follows them."""

    def __init__(self, models: Callable[[], Sequence[str]]) -> None:
        self._models = models
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        word, blank, argument = text.partition(" ")
        if not blank:
            for command in slash.COMMANDS:
                name = f"/{command.name}"
                if name.startswith(word):
                    yield Completion(f"{name} " if command.argument else name, -len(word), display=name)
        elif word == "/model":
            for name in self._models():
                if name.startswith(argument):
                    yield Completion(name, -len(argument))
        elif word == "/save":
            yield from self._paths.get_completions(Document(argument), complete_event)


class _PrivateHistory(FileHistory):
    """A history that only the user can read; a disk that is full costs a line of it, and not the chat."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except (OSError, UnicodeError):
            return []

    def store_string(self, string: str) -> None:
        if len(string) > MOST_ENTRY_CHARACTERS:
            return
        with contextlib.suppress(OSError):
            super().store_string(string.encode("utf-8", "replace").decode())


def _history(path: Path) -> History:
    try:
        private.make_private(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
        _shorten(path)
    except OSError:
        return InMemoryHistory()
    return _PrivateHistory(str(path))


def _shorten(path: Path) -> None:
    """Leave the newer half of a history that has grown; each entry of the file begins with `# `."""
    if path.stat().st_size <= MOST_HISTORY_BYTES:
        return
    _, _, rest = path.read_bytes()[-MOST_HISTORY_BYTES // 2 :].partition(b"\n# ")
    with private.written_beside(path, b"\n# " + rest) as scratch:
        scratch.rename(path)
