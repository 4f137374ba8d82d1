"""What models write beside what their templates ask for."""

# ruff: noqa: E501 (what models write stands on one line)

from __future__ import annotations

from typing import Any

import pytest

from rbee.worker.output.families import ModelFamily, families
from tests.kit.joined_answers import Joined, bytewise, meant, parse, tool

FAMILIES = {family.name: family for family in families()}
TOOLS = [
    tool("add", a={"type": "integer"}, b={"type": "number"}, note={"type": "string"}),
    tool("now"),
    tool("mcp.get-page", url={"type": "string"}),
]
ADD: Any = ("add", {"a": 1, "b": 2.5})
NOW: Any = ("now", {})


def text(words: str) -> Any:
    return ("text", words)


def thought(words: str) -> Any:
    return ("reasoning", words)


def read(family: ModelFamily, written: str, **options: Any) -> Joined:
    """Return what is read; it is the same however the text is cut."""
    whole = parse(family, [written], TOOLS, **options)
    assert parse(family, written, TOOLS, **options) == whole
    assert parse(family, bytewise(written), TOOLS, **options) == whole
    return whole


ARGUMENTS = '{"a": 1, "b": 2.5}'

CALLS: list[tuple[str, str, list[Any]]] = [
    # JSON in tags: other words, other orders, what is missing, what is too much.
    ("hermes", f'<tool_call>{{"name": "add", "parameters": {ARGUMENTS}}}</tool_call>', [ADD]),
    ("hermes", f'<tool_call>{{"arguments": {ARGUMENTS}, "name": "add"}}</tool_call>', [ADD]),
    ("hermes", f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}', [ADD]),
    ("hermes", f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}', [ADD]),
    ("hermes", f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}\n</tool_call>', [ADD]),
    ("hermes", f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}}}\n</tool_call>', [ADD]),
    ("hermes", f'<tool_call>\n```json\n{{"name": "add", "arguments": {ARGUMENTS}}}\n```\n</tool_call>', [ADD]),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2.5}"}</tool_call>', [ADD]),
    (
        "hermes",
        f'<tool_call>{{"type": "function", "function": {{"name": "add", "arguments": {ARGUMENTS}}}}}</tool_call>',
        [ADD],
    ),
    ("hermes", '<tool_call>{"name": "now"}</tool_call>', [NOW]),
    ("hermes", '<tool_call>{"name": "now", "arguments": null}</tool_call>', [NOW]),
    (
        "hermes",
        f'<tool_call>{{"name": "add", "arguments": {ARGUMENTS}}}{{"name": "now", "arguments": {{}}}}</tool_call>',
        [ADD, NOW],
    ),
    ("hermes", f'<tool_call>[{{"name": "add", "arguments": {ARGUMENTS}}}, {{"name": "now"}}]</tool_call>', [ADD, NOW]),
    (
        "hermes",
        f'Well.\n\n<tool_call>{{"name": "add", "arguments": {ARGUMENTS}}}</tool_call><tool_call>{{"name": "now"}}</tool_call>\n\nDone',
        [text("Well."), ADD, NOW, text("\n\nDone")],
    ),
    ("hermes", f'```json\n{{"name": "add", "arguments": {ARGUMENTS}}}\n```', [ADD]),
    ("hermes", f'{{"name": "add", "arguments": {ARGUMENTS}}}', [ADD]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2.5,}}</tool_call>', [ADD]),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"note": "two\nlines, C:\\dir and it\\\'s"}}</tool_call>',
        [("add", {"note": "two\nlines, C:\\dir and it's"})],
    ),
    ("generic", f'{{"name": "add", "arguments": {ARGUMENTS}}}', [ADD]),
    ("llama-3", f'<|python_tag|>{{"name": "add", "parameters": {ARGUMENTS}}}<|eom_id|>', [ADD]),
    ("llama-3", f'{{"type": "function", "name": "add", "parameters": {ARGUMENTS}}}', [ADD]),
    ("llama-3", f'{{"name": "add", "parameters": {ARGUMENTS}}};{{"name": "now", "parameters": {{}}}}', [ADD, NOW]),
    ("llama-3", f'I call it:\n{{"name": "add", "parameters": {ARGUMENTS}}}', [text("I call it:"), ADD]),
    ("llama-3", "[add(a=1, b=2.5), now()]", [ADD, NOW]),
    ("llama-pythonic", "[add(a=1, b=2.5), now()]", [ADD, NOW]),
    ("llama-pythonic", "<|python_start|>[add(a=1, b=2.5)]<|python_end|>", [ADD]),
    ("llama-pythonic", '[mcp.get-page(url="x")]', [("mcp.get-page", {"url": "x"})]),
    ("mistral", f'[TOOL_CALLS] [{{"name": "add", "arguments": {ARGUMENTS}, "id": "abcdefghi"}}]', [ADD]),
    ("mistral", f'[TOOL_CALLS]{{"name": "add", "arguments": {ARGUMENTS}}}', [ADD]),
    ("mistral-v11", f"[TOOL_CALLS]add[ARGS]{ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}", [ADD, NOW]),
    ("mistral-v11", f"[TOOL_CALLS]add{ARGUMENTS}", [ADD]),
    ("mistral-v11", "So:[TOOL_CALLS]mcp.get-page[ARGS]{}", [text("So:"), ("mcp.get-page", {})]),
    ("granite-3", f'<|tool_call|>[{{"name": "add", "arguments": {ARGUMENTS}}}]', [ADD]),
    ("granite-3", f'<tool_call>[{{"name": "add", "arguments": {ARGUMENTS}}}]', [ADD]),
    ("granite-3", "<think>so</think><response>Well</response>", [thought("so"), text("Well")]),
    ("granite-3", "Here is my thought process: so\n\nHere is my response: Well", [thought("so"), text("Well")]),
    ("phi-4-mini", f' functools[{{"name": "add", "arguments": {ARGUMENTS}}}]', [ADD]),
    ("phi-4-mini", "import functools as f", [text("import functools as f")]),
    (
        "cohere",
        f'<|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "add", "parameters": {ARGUMENTS}}}\n]<|END_ACTION|>',
        [ADD],
    ),
    (
        "cohere",
        "<|START_THINKING|>so<|END_THINKING|><|START_RESPONSE|>Well<|END_RESPONSE|>",
        [thought("so"), text("Well")],
    ),
    ("nemotron-v2", f'<TOOLCALL>[{{"name": "add", "arguments": {ARGUMENTS}}}]</TOOLCALL>', [ADD]),
    (
        "minimax-m1",
        f'<tool_calls>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n{{"name": "now"}}\n</tool_calls>',
        [ADD, NOW],
    ),
    # A name, then JSON.
    (
        "deepseek-r1",
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>",
        [ADD],
    ),
    ("deepseek-r1", f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{ARGUMENTS}", [ADD]),
    (
        "deepseek-v3.1",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [ADD, NOW],
    ),
    (
        "kimi-k2",
        f"<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}",
        [ADD, NOW],
    ),
    (
        "kimi-k2",
        f"<think>so <|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>",
        [thought("so"), ADD],
    ),
    ("functionary-v3.1", f"<function=add>{ARGUMENTS}</function><function=now>{{}}</function>", [ADD, NOW]),
    # Between tags.
    (
        "qwen3-coder",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2.5\n</parameter>\n</function>\n</tool_call>",
        [ADD],
    ),
    (
        "qwen3-coder",
        "<function=add>\n<parameter=a>1</parameter><parameter=b>2.5</parameter></function>\n</tool_call>",
        [ADD],
    ),
    (
        "qwen3-coder",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2.5\n</parameter>",
        [ADD],
    ),
    ("qwen3-coder", "<tool_call>\n<function=now>\n</function>\n<function=now>\n</function></tool_call>", [NOW, NOW]),
    (
        "qwen3-coder",
        "<tool_call><function=add><parameter=note>\n\n a</parameter>b\n\n</parameter></function></tool_call>",
        [("add", {"note": "\n a</parameter>b\n"})],
    ),
    (
        "minimax-m2",
        '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n<parameter name="b">2.5</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        [ADD, NOW],
    ),
    (
        "deepseek-v3.2",
        '\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n<｜DSML｜parameter name="b">2.5</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [ADD],
    ),
    (
        "deepseek-v3.2",
        '<｜DSML｜function_calls><｜DSML｜invoke name="add"><｜DSML｜parameter name="a" string="true">1</｜DSML｜parameter></｜DSML｜invoke>',
        [("add", {"a": "1"})],
    ),
    (
        "glm-4.5",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key><arg_value>2.5</arg_value></tool_call>",
        [ADD],
    ),
    (
        "glm-4.7",
        "<tool_call>now</tool_call><tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>b</arg_key><arg_value>2.5</arg_value></tool_call>",
        [NOW, ADD],
    ),
    (
        "minicpm-5",
        '<function name="add"><param name="note"><![CDATA[a</param></function>\n]]></param><param name="a">1</param></function>',
        [("add", {"note": "a</param></function>\n", "a": 1})],
    ),
    (
        "solar",
        f"<|think|>so<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>x1<|tool_call:name|>add<|tool_call:args|>{ARGUMENTS}<|tool_call:end|><|calls|>",
        [thought("so"), ADD],
    ),
    (
        "hunyuan-3",
        "<tool_calls:opensource>\n<tool_call:opensource>add<tool_sep:opensource>\n<arg_key:opensource>a</arg_key:opensource>\n<arg_value:opensource>1</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>",
        [("add", {"a": 1})],
    ),
    # As Python writes it, as Gemma writes it.
    ("lfm2", "<|tool_call_start|>[add(a=1, b=2.5), now()]<|tool_call_end|>Well", [ADD, NOW, text("Well")]),
    (
        "lfm2",
        "<|tool_call_start|>[add(note='it\\'s \\u00e9\\n', a=None, b=[1, (2, 3), {'k': True}])]<|tool_call_end|>",
        [("add", {"note": "it's é\n", "a": None, "b": [1, [2, 3], {"k": True}]})],
    ),
    ("olmo-3", "<function_calls>\nadd(a=1, b=2.5)\nnow()\n</function_calls>", [ADD, NOW]),
    (
        "function-gemma",
        "<start_function_call>call:add{a:1,b:2.5}<end_function_call><start_function_call>call:now{}<end_function_call>",
        [ADD, NOW],
    ),
    ("gemma-4", '<|tool_call>call:add{note:<|"|>"{x}"<|"|>,a:1}<tool_call|>', [("add", {"note": '"{x}"', "a": 1})]),
    (
        "gemma-4",
        '<|channel>thought\nso\n<channel|>Well<|tool_call>call:add{a:<|"|>1<|"|>,b:2.5}',
        [thought("so"), text("Well"), ADD],
    ),
    ("gemma-4", "<|channel>thought\n<channel|>Well<channel|>", [text("Well")]),
    # Elements in elements.
    (
        "minimax-m3",
        ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="add">]<]minimax[>[<a>1]<]minimax[>[</a>]<]minimax[>[<b>2.5]<]minimax[>[</b>]<]minimax[>[</invoke>\n]<]minimax[>[<invoke name="now">]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>',
        [ADD, NOW],
    ),
    (
        "minimax-m3",
        'So:]<]minimax[>[<tool_call>]<]minimax[>[<invoke name="add">]<]minimax[>[<note>x </note>\n]<]minimax[>[</note>]<]minimax[>[<more>]<]minimax[>[<item>]<]minimax[>[<k>v]<]minimax[>[</k>]<]minimax[>[</item>]<]minimax[>[<item>3]<]minimax[>[</item>]<]minimax[>[</more>]<]minimax[>[</invoke>',
        [text("So:"), ("add", {"note": "x </note>\n", "more": [{"k": "v"}, 3]})],
    ),
    # Python in a fence, and a list under a word.
    ("generic", "I look.\n```tool_code\nadd(a=1, b=2.5)\n```", [text("I look."), ADD]),
    ("generic", "```tool_code\n[add(a=1, b=2.5), now()]\n```\nWell", [ADD, NOW, text("Well")]),
    (
        "command-r",
        f'I look.\nAction: ```json\n[\n  {{"tool_name": "add", "parameters": {ARGUMENTS}}},\n  {{"tool_name": "now", "parameters": {{}}}}\n]\n```',
        [text("I look."), ADD, NOW],
    ),
    # As Hermes writes them, whatever the family: where a template knows no tools, the model is told to.
    ("deepseek-r1", f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n</tool_call>', [ADD]),
    ("mistral-v11", f'So: <tool_call>{{"name": "add", "arguments": {ARGUMENTS}}}</tool_call>', [text("So:"), ADD]),
    ("llama-3", '<tool_call>{"name": "now"}</tool_call>', [NOW]),
    # Messages to somebody.
    ("functionary-v3.2", f"all\nI look.>>>add\n{ARGUMENTS}>>>now\n{{}}", [text("I look."), ADD, NOW]),
    ("functionary-v3.2", f">>>add\n{ARGUMENTS}\n>>>all\nWell", [ADD, text("Well")]),
    ("functionary-v3.2", "all\n>>> 1 + 1\n2\n>>>x", [text(">>> 1 + 1\n2\n>>>x")]),
    (
        "muse",
        ' to=self<|message|>so<|eom|><|start|>assistant to=add<|message|><atem:function_calls>\n<atem:invoke name="add">\n<atem:parameter name="a">1</atem:parameter>\n<atem:parameter name="b">2.5</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=now<|message|><atem:function_calls>\n<atem:invoke name="now">\n</atem:invoke>\n</atem:function_calls><|eot|>',
        [thought("so"), ADD, NOW],
    ),
    ("muse", " to=user<|message|>Well<|eot|>", [text("Well")]),
    # Messages in channels.
    (
        "gpt-oss",
        f"<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
        [thought("so"), ADD],
    ),
    ("gpt-oss", f" to=functions.add<|channel|>commentary json<|message|>{ARGUMENTS}", [ADD]),
    ("gpt-oss", f"<|channel|>analysis to=functions.add code<|message|>{ARGUMENTS}<|call|>", [ADD]),
    ("gpt-oss", "<|channel|>commentary to=functions.now<|message|><|call|>", [NOW]),
    (
        "gpt-oss",
        f"<|channel|>commentary<|message|>I look<|end|><|start|>assistant<|channel|>commentary to=functions.add<|message|>{ARGUMENTS}",
        [text("I look"), ADD],
    ),
    (
        "gpt-oss",
        "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>Well<|return|>",
        [thought("so"), text("Well")],
    ),
    ("gpt-oss", "<|channel|>final<|message|>Well<|return|><|start|>assistant<|chan", [text("Well")]),
    (
        "gpt-oss",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Well<|return|>",
        [text("I look.\n\nWell")],
    ),
    ("gpt-oss", "Well to=you", [text("Well to=you")]),
]


@pytest.mark.parametrize(("name", "written", "expected"), CALLS)
def test_calls_are_found(name: str, written: str, expected: list[Any]) -> None:
    assert meant(read(FAMILIES[name], written)) == expected


TEXTS: list[tuple[str, str]] = [
    ("hermes", '<tool_call>{"name": "other", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "add", "arguments": {a: 1}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "add", "argu'),
    ("hermes", "<tool_call>"),
    ("hermes", "<tool_call>\nadd(1)\n</tool_call>\n"),
    ("hermes", "A <tool_call> is written as </tool_call>."),
    ("hermes", '{"name": "Ann", "arguments": {}}'),
    ("hermes", '{"id": 5, "title": "x"}'),
    ("hermes", '[1, 2, {"name": "add"}]'),
    ("hermes", "```python\nprint(1)\n```"),
    ("hermes", "In code: `<think>` and `</think>`."),
    ("llama-3", '{"name": "add"}'),
    ("llama-3", "[link](add)"),
    ("llama-3", "A list:\n[1, 2]\n{3}"),
    ("llama-3", "<|python_tag|>print(1)"),
    ("llama-pythonic", "[other(a=1)]"),
    ("llama-pythonic", "[add(a=1+1)]"),
    ("mistral", "[TOOL_CALLS][]"),
    ("mistral-v11", "[TOOL_CALLS]other[ARGS]{}"),
    ("phi-4-mini", "functools[0]"),
    ("kimi-k2", "<|tool_call_begin|>functions.other:0<|tool_call_argument_begin|>{}<|tool_call_end|>"),
    ("qwen3-coder", "<tool_call>\n<function=other>\n</function>\n</tool_call>"),
    ("qwen3-coder", "<tool_call>\n<function=add>\n"),
    ("glm-4.5", "<tool_call>other\n</tool_call>"),
    ("lfm2", "<|tool_call_start|>[add(a=]<|tool_call_end|>"),
    ("lfm2", "<|tool_call_start|>[add(1)]<|tool_call_end|>"),
    ("gemma-4", "<|tool_call>call:add{a:1"),
    ("gemma-4", "<|tool_call>call:other{}<tool_call|>"),
    ("minimax-m3", ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="other">]<]minimax[>[</invoke>'),
    ("minimax-m3", ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="add">\n]<]minimax[>[<a'),
    ("generic", "```tool_code\nprint(1)\n```"),
    ("command-r", "Action: look for a bee"),
    ("functionary-v3.2", "other\n{}"),
    ("functionary-v3.2", "add\n[1]"),
]


@pytest.mark.parametrize(("name", "written"), TEXTS)
def test_what_is_no_call_is_text(name: str, written: str) -> None:
    assert read(FAMILIES[name], written) == [("text", written)]


@pytest.mark.parametrize("name", FAMILIES)
def test_without_tools_a_call_is_text(name: str) -> None:
    family = FAMILIES[name]
    if name == "gpt-oss":
        written, expected = "<|channel|>commentary to=functions.now<|message|>{}<|call|>", "{}"
    else:
        written = expected = family.syntax.tools.begin + "now" + family.syntax.tools.end
    assert parse(family, [written]) == parse(family, written) == [("text", expected)]


def test_a_call_behind_one_that_is_none_is_one() -> None:
    written = '<tool_call>{"name": "other"}</tool_call>\n<tool_call>{"name": "now"}</tool_call>'
    assert meant(read(FAMILIES["hermes"], written)) == [text('<tool_call>{"name": "other"}</tool_call>'), NOW]


def test_of_two_in_one_block_the_second_may_be_none() -> None:
    written = '<tool_calls>\n{"name": "now"}\n{"name": "other"}\n</tool_calls>'
    assert meant(read(FAMILIES["minimax-m1"], written)) == [NOW, text('{"name": "other"}\n</tool_calls>')]


def test_arguments_that_break_after_they_were_told_are_passed_on_as_they_are() -> None:
    written = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": x y}}</tool_call>Well'
    assert read(FAMILIES["hermes"], written) == [("call", "call_0", "add", '{"a": 1, "b": x y}}'), text("Well")]


def test_arguments_that_the_end_cuts_off_are_not_completed() -> None:
    """What is missing might be what matters: half a call must not look like a whole one."""
    hermes = '<tool_call>{"name": "add", "arguments": {"note": "rm -r /tmp/'
    assert read(FAMILIES["hermes"], hermes) == [("call", "call_0", "add", '{"note": "rm -r /tmp/')]
    coder = "<tool_call><function=add><parameter=a>1</parameter><parameter=note>rm -r /tmp/"
    assert read(FAMILIES["qwen3-coder"], coder) == [("call", "call_0", "add", '{"a": 1, "note": "rm -r /tmp/')]


def test_ids() -> None:
    def ids(name: str, written: str) -> list[str]:
        return [part[1] for part in parse(FAMILIES[name], [written], TOOLS, new_id=None) if part[0] == "call"]

    first, second = ids("hermes", '<tool_call>{"name": "now"}</tool_call><tool_call>{"name": "now"}</tool_call>')
    assert first != second
    assert first.startswith("call_")
    assert len(first) == 29
    (nine,) = ids("mistral", '[TOOL_CALLS][{"name": "now", "arguments": {}}]')
    assert len(nine) == 9
    assert nine.isalnum()
    # What the model writes is kept where the template wants it back, and never twice.
    twice = "[TOOL_CALLS]now[CALL_ID]abcdefgh1[ARGS]{}"
    kept, other = ids("mistral-id", twice + twice)
    assert kept == "abcdefgh1"
    assert len(other) == 9
    assert other != kept
    begin, end = "<|tool_call_begin|>", "<|tool_call_argument_begin|>{}<|tool_call_end|>"
    assert ids("kimi-k2", f"{begin}functions.now:3{end}{begin}functions.now:3{end}{begin}now{end}") == [
        "functions.now:3",
        "functions.now:1",
        "functions.now:2",
    ]
