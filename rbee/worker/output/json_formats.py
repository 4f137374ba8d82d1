"""What families of models write around thoughts, answer and calls whose arguments are a JSON object (PURE).

Sources: the chat templates that the makers publish with their models, and for gpt-oss the harmony format.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rbee.worker.output.syntax import THINK, AnswerSyntax, ReasoningSyntax, TextSyntax, ToolSyntax

TOOL_CODE: Final = "```tool_code"
"""Begins calls as Gemma 3 was taught to write them, which are Python's: it has no tokens for that."""

# JSON objects with a name and arguments.

HERMES: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name='<tool_call>\n{"name": "',
        after_name='", "arguments": ',
        after_call="}\n</tool_call>",
        separator="\n",
        name="json_string",
        triggers=("<tool_call>",),
        closers=("</tool_call>",),
    )
)

LLAMA: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name='{"name": "',
        after_name='", "parameters": ',
        after_call="}",
        separator="; ",
        name="json_string",
        also=("<|python_tag|>",),
        closers=("<|eom_id|>", "<|eot_id|>"),
        is_single=True,
    )
)

MISTRAL: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="[TOOL_CALLS][",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_call=', "id": "{id}"}',
        separator=", ",
        end="]",
        name="json_string",
        triggers=("[TOOL_CALLS]",),
    ),
    ids="nine",
)

GRANITE: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|tool_call|>[",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_call="}",
        separator=", ",
        end="]",
        name="json_string",
        triggers=("<|tool_call|>",),
        also=("<tool_call>",),
        closers=("</tool_call>",),
    ),
    reasoning=replace(
        THINK,
        also_begin=("Here is my thought process:", "Here's my thought process:"),
        also_end=("Here is my response:", "Here's my response:"),
    ),
    text=TextSyntax(also_begin=("<response>",), also_end=("</response>",)),
)

PHI: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="functools[",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_call="}",
        separator=", ",
        end="]",
        name="json_string",
        triggers=("functools[",),  # with the bracket, as the word alone is a module of Python's
        also=("<|tool_call|>",),
        closers=("<|/tool_call|>",),
    )
)

COHERE: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|START_ACTION|>[\n    ",
        before_name='{"tool_call_id": "{index}", "tool_name": "',
        after_name='", "parameters": ',
        after_call="}",
        separator=",\n    ",
        end="\n]<|END_ACTION|>",
        name="json_string",
        triggers=("<|START_ACTION|>",),
        closers=("<|END_ACTION|>",),
    ),
    reasoning=ReasoningSyntax("<|START_THINKING|>", "<|END_THINKING|>", is_anywhere=True),
    text=TextSyntax("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
COMMAND_R: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="Action:\n```json\n[\n    ",
        before_name='{\n        "tool_name": "',
        after_name='",\n        "parameters": ',
        after_call="\n    }",
        separator=",\n    ",
        end="\n]```",
        name="json_string",
        triggers=("Action:\n```json",),  # with the fence, as the word alone is one of English
        also=("Action: ```json", "Action:```json"),
    )
)
COHERE_TEXT: Final = replace(COHERE, text=TextSyntax("<|START_TEXT|>", "<|END_TEXT|>"))

GENERIC: Final = replace(HERMES, tools=replace(HERMES.tools, also=(TOOL_CODE,)))
"""For models whose templates have no format: they are told Hermes's, and some write Google's all the same."""

NEMOTRON: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<TOOLCALL>[",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_call="}",
        separator=", ",
        end="]</TOOLCALL>",
        name="json_string",
        triggers=("<TOOLCALL>",),
        closers=("</TOOLCALL>",),
    )
)

APRIEL: Final = AnswerSyntax(
    tools=replace(
        NEMOTRON.tools,
        begin="<tool_calls>[",
        end="]</tool_calls>",
        triggers=("<tool_calls>",),
        also=("<tool_call>",),
        closers=("</tool_calls>", "</tool_call>"),
    )
)

MINIMAX_M1: Final = AnswerSyntax(
    tools=replace(
        APRIEL.tools,
        begin="<tool_calls>\n",
        separator="\n",
        end="\n</tool_calls>",
    )
)

APERTUS: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|tools_prefix|>[",
        before_name='{"',
        after_name='": ',
        after_call="}",
        separator=", ",
        end="]<|tools_suffix|>",
        name="json_key",
        triggers=("<|tools_prefix|>",),
        closers=("<|tools_suffix|>",),
    ),
    reasoning=ReasoningSyntax("<|inner_prefix|>", "<|inner_suffix|>", is_anywhere=True),
)

GIGACHAT_31: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name='<|function_call|>{"name": "',
        after_name='", "arguments": ',
        after_call="}",
        name="json_string",
        triggers=("<|function_call|>",),
        is_single=True,
    )
)
GIGACHAT: Final = AnswerSyntax(
    tools=replace(
        GIGACHAT_31.tools,
        before_name='<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "',
        triggers=("<|message_sep|>\n\nfunction call<|role_sep|>",),
    )
)

# A name in the text, then a JSON object.

MISTRAL_V11: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="[TOOL_CALLS]",
        after_name="[ARGS]",
        after_call="",
        triggers=("[TOOL_CALLS]",),
        header=r"\s*(?P<name>[^\s\[\]{}]+)(?:\[CALL_ID\](?P<id>[^\s\[\]]*))?\s*(?:\[ARGS\])?\s*",
    ),
    ids="nine",
)
MISTRAL_ID: Final = replace(MISTRAL_V11, tools=replace(MISTRAL_V11.tools, after_name="[CALL_ID]{id}[ARGS]"))

_DEEPSEEK_CLOSERS: Final = ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")
_DEEPSEEK_HEADER: Final = (
    r"\s*(?:function\s*<｜tool▁sep｜>)?\s*(?P<name>[^\s<>{}]+)\s*(?:<｜tool▁sep｜>)?\s*(?:```(?:json)?)?\s*"
)
DEEPSEEK_R1: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        after_name="\n```json\n",
        after_call="\n```<｜tool▁call▁end｜>",
        separator="\n",
        end="<｜tool▁calls▁end｜>",
        triggers=("<｜tool▁calls▁begin｜>",),
        also=("<｜tool▁call▁begin｜>",),
        closers=_DEEPSEEK_CLOSERS,
        known_by="<｜tool▁call▁begin｜>",
        header=_DEEPSEEK_HEADER,
    )
)
DEEPSEEK_V31: Final = AnswerSyntax(
    tools=replace(
        DEEPSEEK_R1.tools,
        before_name="<｜tool▁call▁begin｜>",
        after_name="<｜tool▁sep｜>",
        after_call="<｜tool▁call▁end｜>",
        separator="",
    )
)

KIMI: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|tool_calls_section_begin|>",
        before_name="<|tool_call_begin|>functions.",
        after_name=":{index}<|tool_call_argument_begin|>",
        after_call="<|tool_call_end|>",
        end="<|tool_calls_section_end|>",
        triggers=("<|tool_calls_section_begin|>",),
        also=("<|tool_call_begin|>",),
        closers=("<|tool_call_end|>", "<|tool_calls_section_end|>"),
        known_by="<|tool_call_begin|>",
        header=r"\s*(?P<id>(?:functions\.)?(?P<name>[^\s<>{}]+?)(?::[0-9]+)?)\s*<\|tool_call_argument_begin\|>\s*",
    ),
    ids="kimi",
)

FUNCTIONARY: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="<function=",
        after_name=">",
        after_call="</function>",
        triggers=("<function=",),
        closers=("</function>",),
        header=r"(?P<name>[^<>{}]+)>\s*",
    )
)

FUNCTIONARY_32: Final = AnswerSyntax(
    tools=ToolSyntax(before_name="", after_name="\n", after_call="", separator=">>>"),
    text=TextSyntax("all\n"),
    between=">>>",
    form="functionary",
)

SOLAR: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|tool_calls|>",
        before_name="<|tool_call:begin|>{id}<|tool_call:name|>",
        after_name="<|tool_call:args|>",
        after_call="<|tool_call:end|>",
        end="<|calls|>",
        triggers=("<|tool_calls|>",),
        also=("<|begin|>assistant<|tool_calls|>", "<|tool_call:begin|>"),
        closers=("<|tool_call:end|>", "<|calls|>"),
        known_by="<|tool_call:begin|>",
        header=r"[^<>{}]*<\|tool_call:name\|>(?P<name>[^<>{}]+)<\|tool_call:args\|>\s*",
    ),
    reasoning=ReasoningSyntax("<|think|>", "<|end|>"),
    text=TextSyntax("<|content|>", "<|end|>", also_begin=("<|begin|>assistant",)),
    between="<|begin|>assistant",
)

HARMONY: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="<|channel|>commentary to=functions.",
        after_name=" <|constrain|>json<|message|>",
        after_call="<|call|>",
        separator="<|start|>assistant",
        triggers=("<|channel|>commentary to=functions.",),
        closers=("<|call|>", "<|end|>", "<|return|>", "<|start|>"),
        is_single=True,
    ),
    reasoning=ReasoningSyntax("<|channel|>analysis<|message|>", "<|end|>"),
    text=TextSyntax("<|channel|>final<|message|>", "<|end|>"),
    between="<|start|>assistant",
    form="harmony",
)
