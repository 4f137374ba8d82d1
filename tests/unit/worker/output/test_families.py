"""Families are recognised by what their templates write, and their syntax fits together."""

from __future__ import annotations

import pytest

from rbee.wire.chat.conversation import ToolCall
from rbee.worker.output.families import ModelFamily, families, family_of

FAMILIES = families()

TEMPLATES = [
    ("llama-3", "'<|start_header_id|>' {\"name\": n, \"parameters\": p} '<|python_tag|>'"),
    ("llama-4", "<|header_start|>assistant<|header_end|> <|python_start|>"),
    ("llama-pythonic", "<|header_start|> <|python_start|> [func_name1(a=1)]"),
    ("hermes", "<|im_start|> <tools> <tool_call> {} </tool_call>"),
    ("qwen3-coder", "<tool_call>\\n<function=' + name + '>\\n<parameter=' + key"),
    ("functionary-v3.1", "<function=' + name + '>' + arguments + '</function>"),
    ("minicpm-5", "<function name=\"' + name + '\"><param name=\"' + key"),
    ("mistral", "[INST] [TOOL_CALLS][ {} ]"),
    ("mistral-v11", "[SYSTEM_PROMPT] '[TOOL_CALLS]' + name + '[ARGS]'"),
    ("mistral-id", "'[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]'"),
    ("deepseek-r1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜> ```json"),
    ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜> name <｜tool▁sep｜>"),
    ("deepseek-v3.2", "{% set t = '｜DSML｜' %} '<' + t + 'function_calls>' message.tool_calls"),
    ("deepseek-v4", "{% set t = '｜DSML｜' %} '<' + t + 'tool_calls>'"),
    ("gpt-oss", "<|start|>assistant<|channel|>commentary to=functions.<|message|>"),
    ("function-gemma", "<start_function_call>call:"),
    ("gemma-4", "'<|tool_call>call:' + name '<|\"|>' '<|channel>thought'"),
    ("granite-3", "<|start_of_role|>assistant<|end_of_role|> <|tool_call|>"),
    ("hermes", "<|start_of_role|>assistant<|end_of_role|> <tool_call>"),
    ("phi-4-mini", "'<|tool|>' + tools + '<|/tool|>'"),
    ("phi-4-mini", "functools[ {} ]"),
    ("glm-4.5", "<tool_call>' + name\n<arg_key>{{ k }}</arg_key>\n<arg_value>"),
    ("glm-4.7", "<tool_call>' + name <arg_key>' + k + '</arg_key><arg_value>"),
    ("kimi-k2", "<|tool_calls_section_begin|><|tool_call_begin|>"),
    ("kimi-k3", "<|open|>tools<|sep|> <|close|>"),
    ("minimax-m2", "<minimax:tool_call> <invoke name="),
    ("minimax-m1", "<tool_calls>\\n"),
    ("lfm2", "List of tools: <|tool_list_start|>["),
    ("lfm2", "List of tools: ["),
    ("olmo-3", "<function_calls>"),
    ("cohere", "<|START_ACTION|>[ <|START_RESPONSE|>"),
    ("seed-oss", "<seed:tool_call> <function= <parameter="),
    ("apertus", "<|tools_prefix|>["),
    ("nemotron-v2", "<TOOLCALL>["),
    ("gigachat-3.1", "<|role_sep|> <|message_sep|> <|function_call|>"),
    ("gigachat-3", "<|role_sep|> <|message_sep|>"),
    ("apriel", "<thinking> <tool_calls>["),
    ("hunyuan-3", "{% set t = ':opensource' %} <tool_sep{}>"),
    ("solar", "<|begin|>assistant<|tool_calls|><|tool_call:begin|>"),
    ("minimax-m3", "{% set t = ']<]minimax[>[' %} '<mm:think>' '<tool_call>' '<tool_calls>'"),
    ("muse", "' to=' + name + '<|message|>' '<atem:function_calls>' <|start|>"),
    ("command-r", "'\\nAction:\\n```json\\n[' '\"tool_name\": \"'"),
    ("functionary-v3.2", "'>>>all\\n' + content '>>>' + name '<|start_header_id|>'"),
    ("generic", "<|im_start|>user {{ content }}"),
    ("generic", ""),
]


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_the_family_of_a_template(name: str, template: str) -> None:
    assert family_of(template).name == name


def test_each_family_is_found_by_some_template() -> None:
    assert {name for name, _ in TEMPLATES} == {family.name for family in FAMILIES}


@pytest.mark.parametrize(
    ("template", "begin"),
    [
        ("[TOOL_CALLS] [ARGS] [THINK]", "[THINK]"),
        ("<tool_call>", "<think>"),
        ("<tool_call> <seed:think>", "<seed:think>"),
        ("<thinking>", "<thinking>"),
        ("", "<think>"),
    ],
)
def test_thoughts_are_marked_as_the_template_marks_them(template: str, begin: str) -> None:
    assert family_of(template).syntax.reasoning.begin == begin


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_syntax_fits_together(family: ModelFamily) -> None:
    """A grammar is built from it: a call begins with what triggers it, and ends with what is known to end calls."""
    tools = family.syntax.tools
    written = family.write([ToolCall(id="", name="f", arguments="{}"), ToolCall(id="", name="g", arguments="{}")])
    if tools.triggers:
        assert written.startswith(tools.triggers)
    assert (tools.arguments in ("parameters", "elements")) == (tools.parameter is not None)
    assert (tools.arguments == "gemma") == bool(tools.quote)
    assert bool(tools.header) == (tools.arguments == "json" and tools.name == "text" and family.syntax.form == "marked")
    assert tools.known_by in tools.before_name
    left = (tools.after_call + tools.end).strip(" \n,)}") + " "
    for closer in tools.closers:
        left = left.replace(closer, "")
    assert left.strip(" \n]}`") in ("", '"id": "{id}"')


def test_what_stands_before_the_arguments() -> None:
    named = {family.name: family.syntax.tools for family in FAMILIES}
    assert named["hermes"].opening('a"b') == '<tool_call>\n{"name": "a\\"b", "arguments": '
    assert named["kimi-k2"].opening("f") == "<|tool_call_begin|>functions.f:{index}<|tool_call_argument_begin|>"
    assert named["mistral-id"].opening("f") == "[TOOL_CALLS]f[CALL_ID]{id}[ARGS]"


def test_a_call_is_written_with_its_number_and_id() -> None:
    calls = [ToolCall(id="", name="f", arguments="{}")] * 2
    named = {family.name: family for family in FAMILIES}
    assert "functions.f:0<|" in named["kimi-k2"].write(calls)
    assert "functions.f:1<|" in named["kimi-k2"].write(calls)
    assert 'index="2"' in named["kimi-k3"].write(calls)
    assert "{" not in named["mistral-id"].write(calls).replace("{}", "")
