"""What a grammar allows is what a family's models write for these tools, and nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from rbee.wire.chat.conversation import (
    ChatMessage,
    Conversation,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from rbee.worker.output.control_tokens import ControlTokens
from rbee.worker.output.families import ModelFamily, families
from rbee.worker.output.grammar import grammar_of

if TYPE_CHECKING:
    from rbee.wire.chat.conversation import OutputFormat

FAMILIES = families()
TOOLS = [
    Tool(
        name="weather",
        parameters={
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"], "type": "string"},
                "exact": {"type": "boolean"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    ),
    Tool(name="now"),
]
CALLS = [
    ToolCall(id="1", name="weather", arguments='{"city": "Rome", "days": 3, "exact": true}'),
    ToolCall(id="2", name="now", arguments="{}"),
]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
MARKER = re.compile(r"\]<\][a-z]+\[>\[|<[|｜][^<>{}\s]*?[|｜]>|\[[A-Z_]+\]|</?think>|</?tool_call>")
MARKERS = sorted({marker for family in FAMILIES for marker in MARKER.findall(str(family.syntax))})


class Bytes:
    """A vocabulary with a token for each byte, some control tokens, and an end token."""

    def __init__(self, *controls: str) -> None:
        self.tokens = [bytes([value]) for value in range(256)]
        self.tokens += [b"\xff" + name.encode() for name in (*controls, "<end>")]
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None
        self.special_token_ids = list(range(256, len(self.tokens)))
        self.controls = ControlTokens({name: 256 + number for number, name in enumerate(controls)}, [self.eos_token_id])
        self.tokenizer = LLTokenizer(TokenizerWrapper(self))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())

    def encode(self, text: str) -> list[int]:
        parts = self.controls.split(text)
        return [token for part in parts for token in ([part] if isinstance(part, int) else part.encode())]

    def accepts(self, grammar: str | None, text: str) -> bool:
        """Whether a generation under the grammar may be this text, as a whole."""
        return self.allows(grammar, self.encode(text))

    def allows(self, grammar: str | None, tokens: list[int]) -> bool:
        """Whether a generation under the grammar may be these tokens, as a whole."""
        assert grammar is not None
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


PLAIN, MARKED = Bytes(), Bytes(*MARKERS)


def conversation(**fields: Any) -> Conversation:
    return Conversation(messages=[ChatMessage(role="user", content=[TextPart(text="?")])], **fields)


def grammar(
    family: ModelFamily, vocabulary: Bytes, asked: Conversation, *, thinking: bool = False, may_think: bool = True
) -> str | None:
    return grammar_of(asked, family.syntax, vocabulary.controls, is_thinking=thinking, may_think=may_think)


each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
each_vocabulary = pytest.mark.parametrize("vocabulary", [PLAIN, MARKED], ids=["text", "tokens"])


def some_calls(family: ModelFamily) -> list[ToolCall]:
    return CALLS[:1] if family.syntax.tools.is_single else CALLS


@each_family
@each_vocabulary
@pytest.mark.parametrize("reasoning", ["", "Let me see."])
def test_calls_that_are_required_are_written_as_the_family_does(
    family: ModelFamily, vocabulary: Bytes, reasoning: str
) -> None:
    found = grammar(family, vocabulary, conversation(tools=TOOLS, tool_choice=ToolChoice(mode="required")))
    assert vocabulary.accepts(found, family.write(some_calls(family), reasoning))
    assert not vocabulary.accepts(found, "I do not want to.")


@each_family
@pytest.mark.parametrize("mode", ["required", "auto"])
@pytest.mark.parametrize(
    "call",
    [
        ToolCall(id="1", name="climate", arguments="{}"),
        ToolCall(id="1", name="weather", arguments='{"days": 1}'),
        ToolCall(id="1", name="weather", arguments='{"city": "Rome", "days": "three"}'),
        ToolCall(id="1", name="weather", arguments='{"city": "Rome", "unit": "K"}'),
    ],
    ids=["name", "missing", "type", "enum"],
)
def test_no_other_call_is_allowed(family: ModelFamily, mode: Any, call: ToolCall) -> None:
    found = grammar(family, MARKED, conversation(tools=TOOLS, tool_choice=ToolChoice(mode=mode)))
    if found is None:
        assert not family.syntax.tools.triggers, "what nothing marks as a call is free"
        return
    assert not MARKED.accepts(found, family.write([call]))


@pytest.mark.parametrize("text", ["{id}", "x{index}", "{type}", "{name}y", "{key}", "{given_0}", f"a{MARKERS[0]}"])
@each_family
def test_no_text_of_the_client_is_a_placeholder_or_a_control_token(family: ModelFamily, text: str) -> None:
    schema = {"type": "object", "properties": {text: {"type": "string", "enum": [text]}}, "required": [text]}
    tool = Tool(name=text, parameters=schema | {"additionalProperties": False})
    found = grammar(family, MARKED, conversation(tools=[tool], tool_choice=ToolChoice(mode="required")))
    parts = re.split("NAME|KEY|VALUE", family.write([ToolCall(id="1", name="NAME", arguments='{"KEY": "VALUE"}')]))

    def call_with(given: str) -> list[int]:
        first, *others = map(MARKED.encode, parts)
        return first + [token for part in others for token in [*given.encode(), *part]]

    assert MARKED.allows(found, call_with(text))
    for other in ("abcdefghi", "x1", "string", "0"):
        assert not MARKED.allows(found, call_with(other))


@each_family
@each_vocabulary
def test_a_model_that_may_call_may_also_say_anything(family: ModelFamily, vocabulary: Bytes) -> None:
    found = grammar(family, vocabulary, conversation(tools=TOOLS))
    if found is None:
        assert not family.syntax.tools.triggers
        return
    assert vocabulary.accepts(found, 'No <b>call</b> {"name": [x]}, `functools`, ünïcode\n')
    assert vocabulary.accepts(found, family.write(some_calls(family)))
    assert vocabulary.accepts(found, family.write(some_calls(family), "Let me see."))


@pytest.mark.parametrize("vocabulary", [PLAIN, MARKED], ids=["text", "tokens"])
def test_elements_stand_in_elements(vocabulary: Bytes) -> None:
    family = next(family for family in FAMILIES if family.name == "minimax-m3")
    nested = {
        "type": "object",
        "properties": {
            "days": {"type": "array", "items": {"type": "integer"}},
            "place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "more": {"type": "object"},
        },
        "required": ["days"],
        "$defs": {"x": {}},
    }
    asked = conversation(tools=[Tool(name="f", parameters=nested)], tool_choice=ToolChoice(mode="required"))
    found = grammar(family, vocabulary, asked)
    for arguments, is_right in (
        ('{"days": [1, 2], "place": {"city": "Rome"}, "more": {"a": [1, {"b": "c"}], "d": 5}}', True),
        ('{"days": []}', True),
        ('{"days": [1.5]}', False),
        ('{"days": [1], "place": {}}', False),
        ('{"place": {"city": "Rome"}}', False),
    ):
        assert vocabulary.accepts(found, family.write([ToolCall(id="", name="f", arguments=arguments)])) == is_right


@each_family
def test_one_call_alone_where_more_are_not_wanted(family: ModelFamily) -> None:
    asked = conversation(tools=TOOLS, tool_choice=ToolChoice(mode="required"), parallel_tool_calls=False)
    found = grammar(family, MARKED, asked)
    assert MARKED.accepts(found, family.write(CALLS[:1]))
    assert not MARKED.accepts(found, family.write(CALLS))


@each_family
def test_the_tool_that_is_named_and_no_other(family: ModelFamily) -> None:
    asked = conversation(tools=TOOLS, tool_choice=ToolChoice(mode="required", names=["now"]))
    found = grammar(family, MARKED, asked)
    assert MARKED.accepts(found, family.write(CALLS[1:]))
    assert not MARKED.accepts(found, family.write(CALLS[:1]))


@each_family
@each_vocabulary
@pytest.mark.parametrize("reasoning", ["", "Let me see."])
@pytest.mark.parametrize("tools", [[], TOOLS], ids=["alone", "with tools"])
def test_a_format_holds_behind_the_thoughts(
    family: ModelFamily, vocabulary: Bytes, reasoning: str, tools: list[Tool]
) -> None:
    found = grammar(family, vocabulary, conversation(format=JsonSchema(schema=SCHEMA), tools=tools))
    assert vocabulary.accepts(found, family.write(reasoning=reasoning, text='{"a": 5}'))
    assert not vocabulary.accepts(found, family.write(reasoning=reasoning, text='{"a": "5"}'))
    assert not vocabulary.accepts(found, "Here it is.")
    if tools:
        assert vocabulary.accepts(found, family.write(CALLS[:1], reasoning))


@each_family
def test_a_prompt_that_ends_in_thoughts_goes_on_there(family: ModelFamily) -> None:
    reasoning = family.syntax.reasoning
    found = grammar(family, MARKED, conversation(format=JsonSchema(schema=SCHEMA)), thinking=True)
    text = family.write(reasoning="Hm.", text='{"a": 5}').removeprefix(reasoning.begin)
    assert MARKED.accepts(found, text)
    assert not MARKED.accepts(found, family.write(text='{"a": 5}'))


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        (JsonObject(), '{"x": [1, null]}', "[1]"),
        (JsonSchema(schema=True), "[1]", "one"),
        (JsonSchema(schema=SCHEMA), '{"a":1}', '{\n"a": 1}'),
        (JsonSchema(schema=SCHEMA), '{"a": 1}', '{"a":  1}'),
        (JsonSchema(schema=SCHEMA | {"x-guidance": {"whitespace_flexible": True}}), '{\n"a": 1 }', "[]"),
        (Regex(pattern=r"a/b+\/c"), "a/bbb/c", "a/c"),
        (Grammar(syntax="lark", text='start: "yes" | "no"'), "yes", "maybe"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_formats(form: OutputFormat, right: str, wrong: str) -> None:
    found = grammar(FAMILIES[-1], PLAIN, conversation(format=form))
    assert PLAIN.accepts(found, right)
    assert not PLAIN.accepts(found, wrong)


def test_a_grammar_of_llama_cpp_stands_beside_as_it_was_written() -> None:
    found = grammar(FAMILIES[-1], PLAIN, conversation(format=Grammar(syntax="gbnf", text='root ::= "yes"')))
    assert found is not None
    whole, other = json.loads(found)["grammars"]
    assert "@other" in whole["lark_grammar"]
    assert other == {"name": "other", "gbnf": 'root ::= "yes"'}


@pytest.mark.parametrize(
    "asked",
    [conversation(), conversation(tools=TOOLS, tool_choice=ToolChoice(mode="none"))],
    ids=["nothing", "tools that may not be called"],
)
def test_without_a_wish_anything_may_be_written(asked: Conversation) -> None:
    assert all(grammar(family, MARKED, asked) is None for family in FAMILIES)


def test_a_model_that_does_not_think_writes_no_thoughts() -> None:
    found = grammar(FAMILIES[-1], PLAIN, conversation(format=JsonSchema(schema=SCHEMA)), may_think=False)
    assert PLAIN.accepts(found, '{"a": 5}')
    assert not PLAIN.accepts(found, '<think>Hm.</think>{"a": 5}')
