"""What is a command in a chat, and what a message."""

from __future__ import annotations

import pytest

from rbee.keeper.chat import slash
from rbee.keeper.chat.slash import Typed, UnknownCommandError
from rbee.keeper.output.columns import columns


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", Typed()),
        ("  hello  ", Typed(text="hello")),
        ("two\nlines", Typed(text="two\nlines")),
        ('"""\none\n\ntwo\n"""', Typed(text="one\n\ntwo")),
        ('"""one"""', Typed(text="one")),
        ('"""', Typed(text='"""')),
        ("/help", Typed("help")),
        ("/?", Typed("help")),
        ("/BYE", Typed("exit")),
        (" /model  hf:o/r:Q4 ", Typed("model", "hf:o/r:Q4")),
        ("/model", Typed("model")),
        ("/system Be brief.\nAnd kind.", Typed("system", "Be brief.\nAnd kind.")),
        ("//etc/hosts holds what?", Typed(text="/etc/hosts holds what?")),
    ],
)
def test_what_is_typed_is_a_message_or_a_command(typed: str, meant: Typed) -> None:
    assert slash.read(typed) == meant


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("/modle x", "did you mean /model?"),
        ("/mod", "did you mean /model?"),
        ("/etc/hosts is what?", "/help lists them; //etc/hosts … sends it as a message"),
        ("/", "/help lists them; // … sends it as a message"),
        ("/clear all", "/clear alone will: forget what was said, and begin anew"),
    ],
)
def test_a_command_that_there_is_not_is_told_what_may_be_meant(typed: str, hint: str) -> None:
    with pytest.raises(UnknownCommandError) as error:
        slash.read(typed)
    assert error.value.hint == hint


@pytest.mark.parametrize(
    ("typed", "is_open"),
    [('"""', True), ('"""one', True), ('"""one"""', False), ('one """', False), ('""" a """\n', False), ("", False)],
)
def test_a_message_in_quotes_goes_on_until_they_are_closed(typed: str, is_open: bool) -> None:
    assert slash.is_open(typed) is is_open


@pytest.mark.parametrize("room", [24, 59, 80, 100])
def test_the_help_fits_the_terminal(room: int) -> None:
    text = slash.help_text(room)
    assert max(map(columns, text.split("\n"))) <= room
    assert all(f"/{command.name}" in text for command in slash.COMMANDS)
