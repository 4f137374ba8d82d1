"""How a family of models writes what it thinks and calls, as data (PURE).

`worker.output` reads and writes by it, and a grammar for constrained decoding is built from it. A call is written so,
with everything but the two in capitals from here:

    begin  before_name NAME after_name ARGUMENTS after_call  separator  before_name NAME …  end

In these `{index}` counts the calls from 0, `{number}` from 1, and `{id}` is nine letters and digits, others in each
call; `{name}` is the name once more. `{type}` is the type of a parameter's value, in JSON schema's word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

ArgumentStyle = Literal["json", "parameters", "elements", "pythonic", "gemma"]
"""How arguments are written.

- `json`: the JSON object.
- `parameters`: each one as `ParameterSyntax` says.
- `elements`: as `parameters`, with the key in the end of a value too, and objects and lists written so in their turn:
  each element of a list has the key `item`.
- `pythonic`: `key=literal, key=literal`.
- `gemma`: `{key:value,key:value}`; keys are bare, a string stands between two `quote`s, all else is JSON's.
"""
ITEM: Final = "item"
"""The key of each element of a list, where arguments are `elements`."""
IdStyle = Literal["random", "nine", "kimi"]
NameStyle = Literal["text", "json_string", "json_key"]
"""How a call's name is read: it is text, or the value or the key of a JSON string (where it is escaped as such)."""


@dataclass(frozen=True, slots=True)
class ParameterSyntax:
    """How one argument is written: before_key KEY after_key VALUE after_value.

    A string is written as it is, everything else as JSON; `after_key_json` precedes that. Values may follow each other
    in any order.
    """

    before_key: str
    after_key: str
    after_value: str
    after_key_json: str = ""
    """The same as `after_key` where it is empty."""
    quotes: tuple[str, str] | None = None
    """What stands around a string that has `<`, `&` or a line end in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSyntax:
    """How calls are written; the module says which part stands where."""

    before_name: str
    after_name: str
    after_call: str
    begin: str = ""
    separator: str = ""
    end: str = ""
    arguments: ArgumentStyle = "json"
    name: NameStyle = "text"
    parameter: ParameterSyntax | None = None
    quote: str = ""
    triggers: tuple[str, ...] = ()
    """Each is a beginning of a call that stands in no other text: what follows one of them is a call.

    Without any a call is known by its first token: it is the whole answer.
    """
    also: tuple[str, ...] = ()
    """Further beginnings, which models write though their template says otherwise; they are read, never written."""
    closers: tuple[str, ...] = ()
    """What ends a call, or all of them; each is left out by models now and then."""
    known_by: str = ""
    """The part of `before_name` by which a call is known, where several stand in one block; else all of it."""
    header: str = ""
    """For a name outside of JSON: what stands between the beginning of a call and its arguments, as a regular
    expression with the groups `name` and perhaps `id`."""
    is_single: bool = False
    """Whether there is one call in an answer."""

    def opening(self, name: str) -> str:
        """Return what stands before the arguments of a call to this tool.

        A grammar has `{index}` and `{number}` be digits, and `{id}` nine letters and digits: it counts no calls.
        """
        return self.around(self.spelled(name))

    def spelled(self, name: str) -> str:
        """Return how a name is written."""
        return name if self.name == "text" else json.dumps(name, ensure_ascii=False)[1:-1]

    def around(self, spelled: str) -> str:
        """Return what stands before the arguments of a call to the tool whose name is spelled so."""
        return f"{self.before_name}{{name}}{self.after_name}".replace("{name}", spelled)


@dataclass(frozen=True, slots=True)
class ReasoningSyntax:
    """What stands before and after the thoughts; the prompt may end with the first of them."""

    begin: str
    end: str
    also_begin: tuple[str, ...] = ()
    also_end: tuple[str, ...] = ()
    is_anywhere: bool = False
    """Whether it is a control token wherever it stands. Else it is one before the answer, and text in the answer."""

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.also_begin)

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.end, *self.also_end)


@dataclass(frozen=True, slots=True)
class TextSyntax:
    """What stands before and after the answer itself."""

    begin: str = ""
    end: str = ""
    also_begin: tuple[str, ...] = ()
    also_end: tuple[str, ...] = ()

    @property
    def begins(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.begin, *self.also_begin)))

    @property
    def ends(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.end, *self.also_end)))


THINK: Final = ReasoningSyntax("<think>", "</think>")
PLAIN_TEXT: Final = TextSyntax()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSyntax:
    """How a whole answer is written: thoughts, then text, then calls, each only where there is one.

    `between` stands between two of them.
    """

    tools: ToolSyntax
    reasoning: ReasoningSyntax = THINK
    text: TextSyntax = PLAIN_TEXT
    between: str = ""
    form: Literal["marked", "harmony", "functionary"] = "marked"
    """Whether markers stand in a text, or the text is a row of messages, each to somebody."""
    ids: IdStyle = "random"
    """Which ids calls get: `call_` and random letters; nine letters and digits, as Mistral's templates demand; or
    Kimi's functions.NAME:INDEX."""
