"""Builds the grammar that an answer has to keep to, in llguidance's Lark (PURE).

https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. A terminal holds text and never a control token, so
what a family of models writes is taken apart at those.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.errors import InvalidRequestError
from rbee.wire.chat.conversation import Grammar, JsonObject, JsonSchema, Regex
from rbee.worker.output.schema_parts import shared_of
from rbee.worker.output.syntax import ITEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rbee.wire.chat.conversation import Conversation, OutputFormat, Tool
    from rbee.worker.output.control_tokens import ControlTokens
    from rbee.worker.output.syntax import AnswerSyntax, ParameterSyntax, ToolSyntax

TEXT: Final = "TEXT: /(.|\\n)*/"
LARK: Final = "lark_grammar"
"""The key of a grammar among several, as llguidance has it."""
GBNF: Final = "gbnf"
"""The key of one that is in llama.cpp's form, and has to be translated first."""
FREE: Final = "free"
"""The rule for elements of any names."""
SPACE: Final = "SPACE: /[ \\t\\r\\n]{0,20}/"
ONE_LINE: Final = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}}
"""How JSON is written: small models that may write white space write it without an end, until their tokens are up.

Source: llguidance, docs/json_schema.md; its pattern for white space bounds nothing, since it may come again and again.
"""
_PLACEHOLDERS: Final = {"index": "/[0-9]{1,4}/", "number": "/[0-9]{1,4}/", "id": "/[A-Za-z0-9]{9}/", "type": "/[a-z]+/"}
_PLACEHOLDER: Final = re.compile("{(" + "|".join(_PLACEHOLDERS) + r"|given_\d+)}")


class TrialVerdict(msgspec.Struct):
    """What came of the trial of a grammar: it in llguidance's own form, or why it cannot be kept to."""

    grammar: str = ""
    reason: str = ""


def uncompilable(reason: str) -> InvalidRequestError:
    """Return the error for a format that cannot be kept to; `reason` repeats nothing but what the compiler quotes."""
    return InvalidRequestError(
        f"field conversation.format: it cannot be kept to: {reason}",
        field="conversation.format",
        rule="a schema or grammar that can be compiled",
    )


def is_whole_grammar(grammar: str) -> bool:
    """Whether a client's own grammar is a part of one that `grammar_of` has built."""
    return grammar.startswith("{")


class _Rules:
    """The rules of one grammar; each method returns what stands for it in the body of a rule."""

    def __init__(self, controls: ControlTokens) -> None:
        self._controls = controls
        self._lines: list[str] = []
        self._names: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self._other: Grammar | None = None

    def given(self, text: str) -> str:
        """A text of the client's, to be put into one of a family's: nothing in it is a placeholder or a token."""
        key = f"given_{len(self._given)}"
        self._given[key] = text
        return f"{{{key}}}"

    def literal(self, text: str) -> str:
        """Exactly this text of a family's, but for its placeholders."""
        found = []
        for part in self._controls.split(text):
            if isinstance(part, int):
                found.append(f"<[{part}]>")
                continue
            for index, piece in enumerate(_PLACEHOLDER.split(part)):
                if index % 2 and piece in _PLACEHOLDERS:
                    found.append(_PLACEHOLDERS[piece])
                elif text := self._given[piece] if index % 2 else piece:
                    found.append(json.dumps(text))
        return " ".join(found)

    def rule(self, body: str, options: str = "") -> str:
        """Something of its own; a body that was given before is the same rule."""
        key = f"{options} {body}"
        if key not in self._names:
            self._names[key] = name = f"rule_{len(self._names)}"
            self._lines.append(f"{name}{options}: {body}")
        return self._names[key]

    def one_of(self, bodies: Sequence[str]) -> str:
        return self.rule(" | ".join(dict.fromkeys(bodies)))

    def until(self, marker: str) -> str:
        """Any text, up to and with a marker, which does not stand in it."""
        first = self._controls.split(marker)[0]
        if isinstance(first, int):
            return f"TEXT {self.literal(marker)}"
        # A text that holds the beginning of a marker with a control token inside is not allowed for.
        return f"{self.rule(f'TEXT {self.literal(first)}', '[lazy]')} {self.literal(marker[len(first) :])}".strip()

    def free(self, parameter: ParameterSyntax, key: str) -> str:
        """Anything that elements hold, up to and with the end of the element of a key."""
        end = self.until(parameter.after_value.replace("{key}", self.given(key)))
        if not isinstance(self._controls.split(parameter.before_key)[0], int):
            return end
        if FREE not in self._names:
            self._names[FREE] = FREE
            name = "/[^<>]+/"
            begin = f"{self.literal(parameter.before_key)} {name} {self.literal(parameter.after_key)}"
            before, after = parameter.after_value.split("{key}")
            close = f"TEXT {self.literal(before)} {name} {self.literal(after)}"
            self._lines.append(f"{FREE}: (TEXT {begin} {FREE} {close})*")
        return f"{FREE} {end}"

    def others(self, markers: Iterable[str]) -> str | None:
        """Any control token that none of these begins with, nor ends the text."""
        firsts = [part for marker in markers for part in self._controls.split(marker)[:1] if isinstance(part, int)]
        tokens = self._controls.others(firsts)
        return f"<[{','.join(map(str, tokens))}]>" if tokens else None

    def json(self, schema: Any) -> str:
        """JSON that a schema allows, on one line; a schema may say otherwise with llguidance's own key."""
        if schema is True or isinstance(schema, dict):
            schema = ONE_LINE | ({} if schema is True else schema)
        return self.rule(f"%json {json.dumps(schema)}")

    def other(self, grammar: Grammar) -> str:
        """What a grammar of its own allows."""
        self._other = grammar
        return "@other"

    def written(self, start: str) -> str:
        lark = "\n".join(["%llguidance {}", f"start: {start}", TEXT, SPACE, *self._lines, ""])
        if self._other is None:
            return lark
        other = {"name": "other", GBNF if self._other.syntax == "gbnf" else LARK: self._other.text}
        return json.dumps({"grammars": [{"name": "whole", LARK: lark}, other]})


def grammar_of(
    conversation: Conversation, syntax: AnswerSyntax, controls: ControlTokens, *, is_thinking: bool, may_think: bool
) -> str | None:
    """Return the grammar of a conversation's answer, or None where anything may be written.

    `is_thinking` if the prompt ends inside the model's thoughts; `may_think` if the model knows how to begin some.
    Raises InvalidRequestError for a schema that is nested too deeply.
    """
    try:
        return _grammar_of(conversation, syntax, controls, is_thinking, may_think)
    except RecursionError:
        raise InvalidRequestError(
            "field conversation: a schema is nested too deeply", field="conversation", rule="less deep"
        ) from None


def _grammar_of(
    conversation: Conversation, syntax: AnswerSyntax, controls: ControlTokens, is_thinking: bool, may_think: bool
) -> str | None:
    choice = conversation.tool_choice
    tools = [tool for tool in conversation.tools if not choice.names or tool.name in choice.names]
    if choice.mode == "none" or not syntax.tools:
        tools = []
    rules = _Rules(controls)
    is_single = syntax.tools.is_single or not conversation.parallel_tool_calls
    if tools and choice.mode == "required":
        calls = _calls(rules, syntax, tools, is_single)
        return rules.written(_behind_thoughts(rules, syntax, calls, is_thinking, may_think))
    if conversation.format is not None:
        body = _formatted(rules, syntax, conversation.format, tools)
        is_json = isinstance(conversation.format, (JsonObject, JsonSchema))
        if tools and not (is_json and _unmarked_calls(syntax.tools, tools)):
            body = rules.one_of([body, _calls(rules, syntax, tools, is_single)])
        return rules.written(_behind_thoughts(rules, syntax, body, is_thinking, may_think))
    if tools and syntax.tools.triggers:
        return rules.written(_triggered(rules, syntax, tools, is_single))
    return None


def _behind_thoughts(rules: _Rules, syntax: AnswerSyntax, body: str, is_thinking: bool, may_think: bool) -> str:
    """What stands behind the thoughts of a model, if it has some."""
    reasoning = syntax.reasoning
    rest = f"{rules.until(reasoning.end)} SPACE {rules.literal(syntax.between)}".strip()
    if is_thinking:
        return f"{rest} {body}"
    if may_think:
        return f"(SPACE {rules.literal(reasoning.begin)} {rest})? {body}"
    return body


def _formatted(rules: _Rules, syntax: AnswerSyntax, form: OutputFormat, tools: Sequence[Tool]) -> str:
    """The answer in its format; a call that nothing marks as one is JSON too, and so another of its forms."""
    unmarked = _unmarked_calls(syntax.tools, tools)
    match form:
        case JsonObject() | JsonSchema():
            schema = form.schema if isinstance(form, JsonSchema) else {"type": "object"}
            body = rules.json({"anyOf": [schema, *unmarked]} if unmarked else schema)
        case Regex(pattern=pattern):
            body = rules.rule(f"/{_slashes(pattern)}/")
        case Grammar():
            body = rules.other(form)
    return f"{rules.literal(syntax.text.begin)} {body} {rules.literal(syntax.text.end)}".strip()


def _slashes(pattern: str) -> str:
    """A regular expression between slashes: those in it are escaped, unless they are already."""
    return re.sub(r"\\.|/", lambda found: found[0] if found[0] != "/" else r"\/", pattern, flags=re.DOTALL)


def _calls(rules: _Rules, syntax: AnswerSyntax, tools: Sequence[Tool], is_single: bool) -> str:
    """One or more calls, as a whole."""
    written = syntax.tools
    call = rules.one_of([_call(rules, written, tool) for tool in tools])
    more = "" if is_single else f" ({rules.literal(written.separator)} {call})*"
    return rules.rule(f"{rules.literal(written.begin)} {call}{more} {rules.literal(written.end)}")


def _triggered(rules: _Rules, syntax: AnswerSyntax, tools: Sequence[Tool], is_single: bool) -> str:
    """Any text, in which what a trigger begins is a call."""
    written = syntax.tools
    # A control token may begin a call or something else, as the channels of gpt-oss do.
    blocks = [rules.rule(f"TEXT {rules.literal(begin)}") for begin in (*syntax.reasoning.begins, *syntax.text.begins)]
    for tool in tools:
        head = f"{written.begin}{_opening(rules, written, tool)}"
        trigger = next(trigger for trigger in written.triggers if head.startswith(trigger))
        first = _call(rules, written, tool, known=trigger)
        more = ""
        if written.begin and not is_single:
            others = rules.one_of([_call(rules, written, other) for other in tools])
            more = f" ({rules.literal(written.separator)} {others})*"
        blocks.append(rules.rule(f"{rules.until(trigger)} {first}{more} {rules.literal(written.end)}"))
    if (control := rules.others(written.triggers)) is not None:
        blocks.append(rules.rule(f"TEXT {control}"))
    return f"({' | '.join(dict.fromkeys(blocks))})* TEXT"


def _call(rules: _Rules, written: ToolSyntax, tool: Tool, *, known: str = "") -> str:
    """One call; where what is `known` of its beginning has come, what is left of that."""
    head = _opening(rules, written, tool)
    if known:
        head = f"{written.begin}{head}".removeprefix(known)
    parts = [rules.literal(head), _arguments(rules, written, tool), rules.literal(written.after_call)]
    return rules.rule(" ".join(part for part in parts if part))


def _opening(rules: _Rules, written: ToolSyntax, tool: Tool) -> str:
    return written.around(rules.given(written.spelled(tool.name)))


def _unmarked_calls(written: ToolSyntax, tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return the schemas of calls that are one JSON object as a whole; none where they are written otherwise."""
    if written.triggers:
        return []
    try:
        example = json.loads(f"{written.before_name}NAME{written.after_name}{{}}{written.after_call}")
    except ValueError:
        return []
    found = []
    for tool in tools:
        parts = {key: {"const": tool.name} if value == "NAME" else _object(tool) for key, value in example.items()}
        found.append({"type": "object", "properties": parts, "required": [*parts], "additionalProperties": False})
    return found


def _object(tool: Tool) -> dict[str, Any]:
    return {"type": "object"} | tool.parameters


def _arguments(rules: _Rules, written: ToolSyntax, tool: Tool) -> str:
    schema = _object(tool)
    if written.arguments == "json":
        return rules.json(schema)
    if written.arguments == "elements":
        return _elements(rules, written, schema)
    entries = [(_entry(rules, written, name, value), is_required) for name, value, is_required in _properties(schema)]
    if written.arguments == "parameters":
        return _each(entries)
    if written.arguments == "pythonic":
        return _listed(rules, entries, ", ")
    return f'"{{" {_listed(rules, entries, ",")} "}}"'


def _properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
    """Return the names and schemas of an object's properties, and whether each is required."""
    names, properties = schema.get("required"), schema.get("properties")
    required = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    shared = shared_of(schema)
    return [
        (name, shared | value if isinstance(value, dict) else {}, name in required)
        for name, value in (properties.items() if isinstance(properties, dict) else ())
    ]


def _each(entries: Sequence[tuple[str, bool]]) -> str:
    return " ".join(entry if is_required else f"({entry})?" for entry, is_required in entries)


def _elements(rules: _Rules, written: ToolSyntax, schema: dict[str, Any]) -> str:
    return _each(
        [(_element(rules, written, name, value), is_required) for name, value, is_required in _properties(schema)]
    )


def _element(rules: _Rules, written: ToolSyntax, key: str, schema: dict[str, Any]) -> str:
    """One element, in which others may stand."""
    parameter, kind = written.parameter, schema.get("type")
    assert parameter is not None
    given = rules.given(key)
    head = rules.literal(f"{parameter.before_key}{given}{parameter.after_key}")
    after = parameter.after_value.replace("{key}", given)
    tail = rules.literal(after)
    if choices := _choices(schema):
        return rules.rule(f"{head} ({_any_of(rules, choices)}) {tail}")
    if kind == "string":
        return rules.rule(f"{head} {rules.until(after)}")
    if kind in ("integer", "number", "boolean", "null"):
        return rules.rule(f"{head} {rules.json(schema)} {tail}")
    if kind == "array" and isinstance(items := schema.get("items"), dict):
        shared = shared_of(schema)
        return rules.rule(f"{head} ({_element(rules, written, ITEM, shared | items)})* {tail}")
    if kind == "object" and schema.get("properties"):
        return rules.rule(f"{head} {_elements(rules, written, schema)} {tail}")
    return rules.rule(f"{head} {rules.free(parameter, key)}")


def _choices(schema: dict[str, Any]) -> list[str]:
    """The strings that a string may be, where they are named; none of them is empty, which is no part of a rule."""
    values = schema.get("enum")
    if schema.get("type") != "string" or not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, str) and value]


def _any_of(rules: _Rules, texts: Sequence[str]) -> str:
    return " | ".join(rules.literal(rules.given(text)) for text in texts)


def _listed(rules: _Rules, entries: Sequence[tuple[str, bool]], separator: str) -> str:
    """Entries in their order, those that are not required each with or without; separated wherever two follow."""
    between = json.dumps(separator)
    rest_first, rest_next, nothing = "", "", rules.rule('""')
    for entry, is_required in reversed(entries):
        taken = rules.rule(f"{entry} {rest_next}".strip())
        later = rules.rule(f"{between} {entry} {rest_next}".strip())
        if is_required:
            rest_first, rest_next = taken, later
        else:
            rest_first = rules.rule(f"{taken} | {rest_first or nothing}")
            rest_next = rules.rule(f"{later} | {rest_next or nothing}")
    return rest_first


def _entry(rules: _Rules, written: ToolSyntax, name: str, schema: dict[str, Any]) -> str:
    kind, name = schema.get("type"), rules.given(name)
    is_text = kind == "string" and not ("enum" in schema or "const" in schema or "pattern" in schema)
    if written.arguments == "parameters":
        parameter = written.parameter
        assert parameter is not None
        choices = _choices(schema)
        if is_text or choices:
            head = rules.literal(f"{parameter.before_key}{name}{parameter.after_key}")
            if choices:
                return rules.rule(f"{head} ({_any_of(rules, choices)}) {rules.literal(parameter.after_value)}")
            return rules.rule(f"{head} {rules.until(parameter.after_value)}")
        head = rules.literal(f"{parameter.before_key}{name}{parameter.after_key_json or parameter.after_key}")
        return rules.rule(f"{head} {rules.json(schema)} {rules.literal(parameter.after_value)}")
    if written.arguments == "pythonic":
        value = {"boolean": '("True" | "False")', "null": '"None"'}.get(str(kind)) or rules.json(schema)
        return rules.rule(f"{rules.literal(name + '=')} {value}")
    if is_text:
        value = f"{rules.literal(written.quote)} {rules.until(written.quote)}"
    elif choices := _choices(schema):
        value = f"{rules.literal(written.quote)} ({_any_of(rules, choices)}) {rules.literal(written.quote)}"
    else:
        value = rules.json(schema)
    return rules.rule(f"{rules.literal(name + ':')} {value}")
