"""Reads the tools of a request, and which of them the model may or has to call (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.queen.api.refusal import check_depth, refused, unsupported
from rbee.wire.chat.conversation import Tool, ToolChoice
from rbee.wire.dialects.openai_messages import OpenAIToolChoice

if TYPE_CHECKING:
    from rbee.wire.dialects.openai_messages import OpenAIFunction
    from rbee.wire.dialects.openai_request import OpenAIChatRequest


class Tools(NamedTuple):
    """The tools, and the choice among them.

    With `is_single` one call is the whole answer. `are_functions` where the request is of the time before there were
    tools, and its answer is to be so too.
    """

    tools: list[Tool]
    choice: ToolChoice
    is_single: bool
    are_functions: bool = False


def tools_of(request: OpenAIChatRequest) -> Tools:
    """Return the tools that a request offers; raises InvalidRequestError."""
    if request.functions and not request.tools:
        return _functions(request)
    tools = [_tool(tool.type, tool.function, f"tools[{index}]") for index, tool in enumerate(request.tools or [])]
    choice = _choice(request)
    _check(choice, tools, "tool_choice")
    # Who names a function wants a call of it, and small models do not stop by themselves after one.
    is_named = isinstance(request.tool_choice, OpenAIToolChoice) and request.tool_choice.type == "function"
    return Tools(tools, choice, is_single=is_named or request.parallel_tool_calls is False)


def _functions(request: OpenAIChatRequest) -> Tools:
    tools = [
        _tool("function", function, f"functions[{index}]") for index, function in enumerate(request.functions or [])
    ]
    called = request.function_call
    if called is None or isinstance(called, str):
        choice = ToolChoice(mode="none" if called == "none" else "auto")
    else:
        choice = ToolChoice(mode="required", names=[called.name])
    _check(choice, tools, "function_call")
    return Tools(tools, choice, is_single=True, are_functions=True)


def _tool(kind: str, function: OpenAIFunction | None, field: str) -> Tool:
    if kind != "function":
        raise unsupported(f"{field}.type", "function is the only kind of tool that there is here")
    if function is None:
        raise refused(f"{field}.function", "required")
    check_depth(function.parameters, f"{field}.function.parameters")
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        strict=bool(function.strict),
    )


def _choice(request: OpenAIChatRequest) -> ToolChoice:
    asked = request.tool_choice
    if asked is None:
        return ToolChoice()
    if not isinstance(asked, OpenAIToolChoice):
        return ToolChoice(mode=asked)
    if asked.type == "allowed_tools":
        if (allowed := asked.allowed_tools) is None:
            raise refused("tool_choice.allowed_tools", "required")
        names = [tool.function.name for tool in allowed.tools if tool.function is not None]
        if len(names) < len(allowed.tools) or not names:
            raise refused("tool_choice.allowed_tools.tools", "names functions, at least one")
        return ToolChoice(mode=allowed.mode, names=names)
    if asked.type != "function":
        raise unsupported("tool_choice.type", "function or allowed_tools")
    if asked.function is None:
        raise refused("tool_choice.function", "required")
    return ToolChoice(mode="required", names=[asked.function.name])


def _check(choice: ToolChoice, tools: list[Tool], field: str) -> None:
    if choice.mode == "required" and not tools:
        raise refused(field, "a call can only be required where tools are offered")
    if not {tool.name for tool in tools}.issuperset(choice.names):
        raise refused(field, "names a tool that is not offered")
