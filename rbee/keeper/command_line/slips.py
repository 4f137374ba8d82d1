"""Finds what is out of place on a command line, and says where it belongs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NoReturn

from rbee.adapters import numbers
from rbee.adapters.arguments import UsageError
from rbee.keeper.command_line import habits, meant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.adapters.arguments import Parser

_TIMES: Final = ("--keep", "--wait")
_SAY_MORE: Final = ("--prompt", "-p", "--stop", "--prefix")
"""Options whose empty value is refused later, in other words."""
_MOST_NAMED: Final = 4
"""Commands that are named where an option of theirs was given to another one."""


def check(main: Parser, words: list[str]) -> None:
    """Raise UsageError for what argparse would not report, or report only after something less to the point."""
    parser, index, taken = main, 0, 0
    while index < len(words):
        word = words[index]
        if _is_option(word):
            takes = parser.takes_value(word)
            if takes is None:
                _refuse(main, parser, words, index)
            value = words[index + 1] if takes and index + 1 < len(words) else None
            if value is not None and value.startswith("--") and parser.takes_value(value) is not None:
                return  # the value is missing, as argparse says
            _check_value(word, value)
            index += 1 + takes
        elif parser.commands:
            if word not in parser.commands:
                hint = meant.command(parser.prog, words[index:], parser.commands)
                if hint is not None:
                    raise UsageError(f"there is no command '{word}'", hint)
                return
            parser = parser.commands[word]
            index += 1
        elif word == "--":
            return
        else:
            taken += 1
            if taken > parser.most_words:
                _refuse_word(parser, words, index)
            index += 1


def _check_value(word: str, value: str | None) -> None:
    """Refuse an empty value, which would stand for none."""
    option, is_assigned, assigned = word.partition("=")
    if (value == "" or (is_assigned and not assigned)) and option not in _SAY_MORE:
        raise UsageError(f"the value of {option} is empty", "maybe it is that of a shell's variable which is not set")


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "--"


def _refuse(main: Parser, parser: Parser, words: list[str], index: int) -> NoReturn:
    word = words[index]
    option = word.partition("=")[0]
    owners = {leaf.prog: leaf for leaf in _leaves(main) if leaf.takes_value(word) is not None}
    if parser.commands:
        if owners:
            _refuse_early(parser, owners, words, index)
        parser.refuse(word)
    _check_habit(parser, option)
    if not parser.near(option) and 0 < len(owners) <= _MOST_NAMED and option.startswith("--"):
        named = " and ".join(f"`{prog}`" for prog in owners)
        raise UsageError(f"there is no option {option}", f"it is an option of {named}")
    parser.refuse(word)


def _refuse_early(parser: Parser, owners: dict[str, Parser], words: list[str], index: int) -> NoReturn:
    """Refuse an option that stands where a command is expected."""
    word = words[index]
    option = word.partition("=")[0]
    end = index + 1 + any(leaf.takes_value(word) for leaf in owners.values())
    start = next((at for at in range(end, len(words)) if words[at] in parser.commands), end)
    leaf = parser
    for later in words[start:]:
        leaf = leaf.commands.get(later, leaf)
    option_words = words[index:start]
    if leaf.prog in owners:
        line = shlex.join([*leaf.prog.split(), *option_words])
        raise UsageError(f"{option} stands before the command", f"options follow it: `{line}`")
    if leaf is not parser:
        _check_habit(leaf, option)
        leaf.refuse(word)
    lines = [f"`{shlex.join([*prog.split(), *option_words])}`" for prog in owners if prog.startswith(parser.prog)]
    named = " or ".join(lines[:_MOST_NAMED]) + (" or …" if len(lines) > _MOST_NAMED else "")
    raise UsageError(
        f"the command before {option} is missing",
        f"did you mean {named}?" if lines else f"`{parser.prog} --help` lists them",
    )


def _check_habit(parser: Parser, option: str) -> None:
    if hint := habits.OPTIONS.get(parser.prog, {}).get(option):
        raise UsageError(f"there is no option {option}", hint)


def _refuse_word(parser: Parser, words: list[str], index: int) -> NoReturn:
    """Refuse a word that no option takes."""
    word = words[index]
    if (hint := _after_option(parser, words, index) or _instead(parser, words, word)) is not None:
        raise UsageError(f"unexpected argument '{word}'", hint)
    parser.refuse(word)


def _after_option(parser: Parser, words: list[str], index: int) -> str | None:
    """Return what a word means as a part of the option before it: a unit, or a value that there is not."""
    word, before = words[index], words[index - 1]
    if _is_option(before) and parser.takes_value(before) is False and "=" not in before and before.startswith("--"):
        return f"{before} takes no value"
    option = words[index - 2] if index > 1 else ""
    if option in _TIMES and numbers.seconds(f"{before}{word}") is not None:
        return f"write {option} {before}{word}"
    return None


def _instead(parser: Parser, words: list[str], word: str) -> str | None:
    """Return the option whose value a word may be, or the command that takes it."""
    if parser.takes_value("--prompt"):
        return None
    if parser.takes_value("--model") and not parser.takes_words:
        return f"did you mean --model {shlex.quote(word)}?"
    if parser.prog == "rbee models push" and word.endswith(".gguf") and not words[-2].endswith(".gguf"):
        return f"did you mean `rbee models push {shlex.quote(word)} --node {shlex.quote(words[-2])}`?"
    given = {part.partition("=")[0] for part in words}
    is_address = "@" in word or "--name" in given
    for option in ("--ssh-host",) * is_address + ("--id", "--name", "--node"):
        if parser.takes_value(option) and option not in given and not (parser.takes_words and option != "--node"):
            if option == "--id" and not meant.is_worker(word):
                return "`rbee workers list` shows the ids of the workers"
            if parser.takes_words and not parser.requires(option):
                return f"one at a time: `{parser.prog} {shlex.quote(word)}` is another command"
            return f"did you mean {option} {shlex.quote(word)}?"
    hint = habits.WORDS.get(parser.prog)
    return None if hint is None else hint.replace("NAME", shlex.quote(word))


def _leaves(parser: Parser) -> Iterator[Parser]:
    if not parser.commands:
        yield parser
    for child in parser.commands.values():
        yield from _leaves(child)
