"""What families of models write that put each argument between tags, or write calls as Python and Gemma do (PURE).

Sources: the chat templates that the makers publish with their models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rbee.worker.output.syntax import AnswerSyntax, ParameterSyntax, ReasoningSyntax, TextSyntax, ToolSyntax

# Arguments between tags.

QWEN_CODER: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="<tool_call>\n<function=",
        after_name=">\n",
        after_call="</function>\n</tool_call>",
        separator="\n",
        arguments="parameters",
        parameter=ParameterSyntax("<parameter=", ">\n", "\n</parameter>\n"),
        triggers=("<tool_call>",),
        also=("<function=",),
        closers=("</function>", "</tool_call>"),
        known_by="<function=",
    )
)

SEED: Final = AnswerSyntax(
    tools=replace(
        QWEN_CODER.tools,
        before_name="<seed:tool_call>\n<function=",
        after_call="</function>\n</seed:tool_call>",
        parameter=ParameterSyntax("<parameter=", ">", "</parameter>\n"),
        triggers=("<seed:tool_call>",),
        closers=("</function>", "</seed:tool_call>"),
    ),
    reasoning=ReasoningSyntax("<seed:think>", "</seed:think>"),
)

MINIMAX_M2: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<minimax:tool_call>\n",
        before_name='<invoke name="',
        after_name='">\n',
        after_call="</invoke>\n",
        end="</minimax:tool_call>",
        arguments="parameters",
        parameter=ParameterSyntax('<parameter name="', '">', "</parameter>\n"),
        triggers=("<minimax:tool_call>",),
        closers=("</invoke>", "</minimax:tool_call>"),
    )
)

_MINIMAX: Final = "]<]minimax[>["
"""A token that begins each tag."""
MINIMAX_M3: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin=f"{_MINIMAX}<tool_call>\n",
        before_name=f'{_MINIMAX}<invoke name="',
        after_name='">',
        after_call=f"{_MINIMAX}</invoke>\n",
        end=f"{_MINIMAX}</tool_call>",
        arguments="elements",
        parameter=ParameterSyntax(f"{_MINIMAX}<", ">", f"{_MINIMAX}</{{key}}>"),
        triggers=(f"{_MINIMAX}<tool_call>",),
        closers=(f"{_MINIMAX}</invoke>", f"{_MINIMAX}</tool_call>"),
    ),
    reasoning=ReasoningSyntax("<mm:think>", "</mm:think>"),
)

MUSE: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name=' to={name}<|message|><atem:function_calls>\n<atem:invoke name="',
        after_name='">\n',
        after_call="</atem:invoke>\n</atem:function_calls>",
        separator="<|eom|><|start|>assistant",
        arguments="parameters",
        parameter=ParameterSyntax('<atem:parameter name="', '">', "</atem:parameter>\n"),
        closers=("</atem:invoke>", "</atem:function_calls>"),
        known_by='<atem:invoke name="',
    ),
    reasoning=ReasoningSyntax(" to=self<|message|>", "<|eom|>"),
    text=TextSyntax(" to=user<|message|>", "<|eom|>"),
    between="<|start|>assistant",
    form="harmony",
)

MINICPM: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name='<function name="',
        after_name='">',
        after_call="</function>",
        arguments="parameters",
        parameter=ParameterSyntax('<param name="', '">', "</param>", quotes=("<![CDATA[", "]]>")),
        triggers=('<function name="',),
        closers=("</function>",),
    )
)

DEEPSEEK_V32: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<｜DSML｜function_calls>\n",
        before_name='<｜DSML｜invoke name="',
        after_name='">\n',
        after_call="</｜DSML｜invoke>\n",
        end="</｜DSML｜function_calls>",
        arguments="parameters",
        parameter=ParameterSyntax(
            '<｜DSML｜parameter name="',
            '" string="true">',
            "</｜DSML｜parameter>\n",
            after_key_json='" string="false">',
        ),
        triggers=("<｜DSML｜function_calls>",),
        closers=("</｜DSML｜invoke>", "</｜DSML｜function_calls>"),
    )
)
DEEPSEEK_V4: Final = AnswerSyntax(
    tools=replace(
        DEEPSEEK_V32.tools,
        begin="<｜DSML｜tool_calls>\n",
        end="</｜DSML｜tool_calls>",
        triggers=("<｜DSML｜tool_calls>",),
        closers=("</｜DSML｜invoke>", "</｜DSML｜tool_calls>"),
    )
)

GLM: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="<tool_call>",
        after_name="\n",
        after_call="</tool_call>",
        separator="\n",
        arguments="parameters",
        parameter=ParameterSyntax("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
        triggers=("<tool_call>",),
        closers=("</tool_call>",),
    )
)
GLM_47: Final = AnswerSyntax(
    tools=replace(
        GLM.tools,
        after_name="",
        separator="",
        parameter=ParameterSyntax("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    )
)

_HUNYUAN: Final = ":opensource"
"""What the published weights' control tokens end with."""
HUNYUAN: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin=f"<tool_calls{_HUNYUAN}>\n",
        before_name=f"<tool_call{_HUNYUAN}>",
        after_name=f"<tool_sep{_HUNYUAN}>\n",
        after_call=f"</tool_call{_HUNYUAN}>\n",
        end=f"</tool_calls{_HUNYUAN}>",
        arguments="parameters",
        parameter=ParameterSyntax(
            f"<arg_key{_HUNYUAN}>",
            f"</arg_key{_HUNYUAN}>\n<arg_value{_HUNYUAN}>",
            f"</arg_value{_HUNYUAN}>\n",
        ),
        triggers=(f"<tool_calls{_HUNYUAN}>",),
        also=(f"<tool_call{_HUNYUAN}>",),
        closers=(f"</tool_call{_HUNYUAN}>", f"</tool_calls{_HUNYUAN}>"),
    ),
    reasoning=ReasoningSyntax(f"<think{_HUNYUAN}>", f"</think{_HUNYUAN}>"),
)

KIMI_K3: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|open|>tools<|sep|>",
        before_name='<|open|>call tool="',
        after_name='" index="{number}"<|sep|>',
        after_call="<|close|>call<|sep|>",
        end="<|close|>tools<|sep|><|close|>message<|sep|>",
        arguments="parameters",
        parameter=ParameterSyntax(
            '<|open|>argument key="',
            '" type="string"<|sep|>',
            "<|close|>argument<|sep|>",
            after_key_json='" type="{type}"<|sep|>',
        ),
        triggers=("<|open|>tools<|sep|>",),
        closers=("<|close|>call<|sep|>", "<|close|>tools<|sep|>", "<|close|>message<|sep|>"),
    ),
    reasoning=ReasoningSyntax("<|open|>think<|sep|>", "<|close|>think<|sep|>", is_anywhere=True),
    text=TextSyntax("<|open|>response<|sep|>", "<|close|>response<|sep|>", also_end=("<|close|>message<|sep|>",)),
)

# As Python writes calls.

LLAMA_PYTHONIC: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="[",
        before_name="",
        after_name="(",
        after_call=")",
        separator=", ",
        end="]",
        arguments="pythonic",
        also=("<|python_start|>", "<|python_tag|>"),
        closers=("<|python_end|>", "<|eom_id|>"),
    )
)
LFM2: Final = AnswerSyntax(
    tools=ToolSyntax(
        begin="<|tool_call_start|>[",
        before_name="",
        after_name="(",
        after_call=")",
        separator=", ",
        end="]<|tool_call_end|>",
        arguments="pythonic",
        triggers=("<|tool_call_start|>",),
        closers=("<|tool_call_end|>",),
    )
)
OLMO: Final = AnswerSyntax(
    tools=replace(
        LFM2.tools,
        begin="<function_calls>\n",
        separator="\n",
        end="\n</function_calls>",
        triggers=("<function_calls>",),
        closers=("</function_calls>",),
    )
)

# As Gemma writes them.

FUNCTION_GEMMA: Final = AnswerSyntax(
    tools=ToolSyntax(
        before_name="<start_function_call>call:",
        after_name="",
        after_call="<end_function_call>",
        arguments="gemma",
        quote="<escape>",
        triggers=("<start_function_call>",),
        closers=("<end_function_call>", "<start_function_response>"),
    )
)
GEMMA_4: Final = AnswerSyntax(
    tools=replace(
        FUNCTION_GEMMA.tools,
        before_name="<|tool_call>call:",
        after_call="<tool_call|>",
        quote='<|"|>',
        triggers=("<|tool_call>",),
        closers=("<tool_call|>", "<|tool_response>"),
    ),
    reasoning=ReasoningSyntax("<|channel>thought", "<channel|>", also_begin=("<|channel>",), is_anywhere=True),
)
