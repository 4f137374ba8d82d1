"""Finds what is out of place on a command line, and says where it belongs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NoReturn

from rbee.adapters.arguments import UsageError
from rbee.keeper.command_line import habits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.adapters.arguments import Parser

_MOST_NAMED: Final = 4
"""Commands that are named where an option of theirs was given to another one."""


def check(main: Parser, words: list[str]) -> None:
    """Raise UsageError for what argparse would not report, or report only after something less to the point."""
    parser, index = main, 0
    while index < len(words):
        word = words[index]
        if _is_option(word):
            takes = parser.takes_value(word)
            if takes is None:
                _refuse(main, parser, words, index)
            index += 1 + takes
        elif parser.commands:
            if word not in parser.commands:
                return
            parser = parser.commands[word]
            index += 1
        elif word == "--":
            return
        else:
            if not parser.takes_words:
                _refuse_word(parser, word)
            index += 1


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
    if hint := habits.OPTIONS.get(parser.prog, {}).get(option):
        raise UsageError(f"there is no option {option}", hint)
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
        leaf.refuse(word)
    lines = [f"`{shlex.join([*prog.split(), *option_words])}`" for prog in owners if prog.startswith(parser.prog)]
    named = " or ".join(lines[:_MOST_NAMED]) + (" or …" if len(lines) > _MOST_NAMED else "")
    raise UsageError(
        f"the command before {option} is missing",
        f"did you mean {named}?" if lines else f"`{parser.prog} --help` lists them",
    )


def _refuse_word(parser: Parser, word: str) -> NoReturn:
    """Refuse a word that no option takes: mostly the value of the option that the command is about."""
    if parser.takes_value("--prompt") is None:
        for option in ("--id", "--name", "--node"):
            if parser.takes_value(option):
                raise UsageError(f"unexpected argument '{word}'", f"did you mean {option} {shlex.quote(word)}?")
    parser.refuse(word)


def _leaves(parser: Parser) -> Iterator[Parser]:
    if not parser.commands:
        yield parser
    for child in parser.commands.values():
        yield from _leaves(child)
