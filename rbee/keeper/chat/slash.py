"""Reads what was typed: a message, or a command that begins with a slash (PURE)."""

from __future__ import annotations

from typing import Final, NamedTuple

from rbee.adapters.nearest import nearest
from rbee.keeper.output import columns


class SlashCommand(NamedTuple):
    """A command of the chat; `argument` stands for what may follow it, and `aliases` mean the same."""

    name: str
    argument: str
    summary: str
    aliases: tuple[str, ...] = ()


COMMANDS: Final = (
    SlashCommand("help", "", "show this", ("?",)),
    SlashCommand("model", "REF", "answer with another model; alone: say which, and list them", ("models",)),
    SlashCommand("system", "TEXT", "tell the model how to answer; `none`: nothing; alone: show it"),
    SlashCommand("regenerate", "", "ask the last question again", ("retry", "again")),
    SlashCommand("save", "FILE", "write the conversation into a file, as Markdown or .json"),
    SlashCommand("stats", "", "show tokens and speeds so far"),
    SlashCommand("clear", "", "forget what was said, and begin anew", ("new", "reset")),
    SlashCommand("exit", "", "leave, as Ctrl+D does", ("quit", "bye", "q")),
)
KEYS: Final = (
    ("Enter", "send"),
    ("Alt+Enter", "begin a new line, as Ctrl+J does"),
    ('"""', "begin and end a message of several lines"),
    ("Tab", "complete a command, a model or a file"),
    ("Up, Ctrl+R", "go back to earlier messages, search them"),
    ("Ctrl+C", "end the answer, or drop what was typed"),
    ("//", "begin a message that begins with a slash"),
)
_NAMES: Final = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}
_NARROW: Final = 60
"""Columns below which an explanation stands under what it explains."""


class Typed(NamedTuple):
    """A command with its argument, or a message to the model; both are empty for nothing."""

    command: str | None = None
    text: str = ""


class UnknownCommandError(Exception):
    """There is no such command; the hint says what may be meant."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def read(typed: str) -> Typed:
    """Return what is meant. Raises UnknownCommandError."""
    text = typed.strip()
    if text.startswith("//"):
        return Typed(text=text[1:])
    if not text.startswith("/"):
        return Typed(text=_without_quotes(text))
    word, _, argument = text[1:].partition(" ")
    if (command := _NAMES.get(word.lower())) is None:
        raise UnknownCommandError(f"there is no command /{word}", _hint(word, text))
    argument = argument.strip()
    if argument and not command.argument:
        raise UnknownCommandError(f"/{command.name} takes nothing", f"/{command.name} alone will: {command.summary}")
    return Typed(command.name, argument)


def is_open(typed: str) -> bool:
    '''Whether a message that begins with """ goes on in the next line.'''
    text = typed.strip()
    return text.startswith('"""') and (len(text) < 6 or not text.endswith('"""'))


def help_text(room: int | None) -> str:
    """Return the list of commands and keys, for so many columns."""
    commands = [(f"/{command.name} {command.argument}".strip(), command.summary) for command in COMMANDS]
    rows = [*commands, ("", ""), *KEYS]
    if room is None or room >= _NARROW:
        wide = max(columns.columns(left) for left, _ in rows) + 3
        return "\n".join(f"{columns.pad(left, wide)}{right}".rstrip() for left, right in rows)
    lines = [line for left, right in rows for line in (left, *(f"  {part}" for part in columns.wrap(right, room - 2)))]
    return "\n".join(line.rstrip() for line in lines)


def _hint(word: str, text: str) -> str:
    meant = dict.fromkeys(_NAMES[name].name for name in nearest(word.lower(), list(_NAMES)))
    near = " or ".join(f"/{name}" for name in meant)
    if near:
        return f"did you mean {near}?"
    first = text.split(maxsplit=1)[0]
    return f"/help lists them; //{first[1:]} … sends it as a message"


def _without_quotes(text: str) -> str:
    return text[3:-3].strip("\n") if len(text) >= 6 and text.startswith('"""') and text.endswith('"""') else text
