"""Writes tools, calls and results as a model reads them (PURE).

Most templates do so themselves. For one that knows no tools they are put as most models were taught them, Hermes 2's
way: https://github.com/NousResearch/Hermes-Function-Calling.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.chat.conversation import Tool, ToolCall

_INTRODUCTION: Final = """You can call functions. Each line between <tools> and </tools> describes one in JSON:
<tools>
{tools}
</tools>
To call one, write its name, and its arguments as a JSON object, exactly like this:
{example}
For several calls write several of these. Their results follow."""
_EXAMPLE: Final = """<tool_call>
{"name": "function_name", "arguments": {"argument_name": "value"}}
</tool_call>"""


def definitions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools as OpenAI describes them, which is what templates take."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                # Many templates go through the properties without looking whether there are any.
                "parameters": {"type": "object", "properties": {}} | _without_nonsense(tool.parameters),
            },
        }
        for tool in tools
    ]


def _without_nonsense(parameters: dict[str, Any]) -> dict[str, Any]:
    if isinstance(parameters.get("properties", {}), dict):
        return parameters
    return {name: value for name, value in parameters.items() if name != "properties"}


def described(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a definition in which each argument has a type and a description, as Command R's template wants it."""
    function = tool["function"]
    parameters = function["parameters"]
    properties = {
        name: {"type": "string", "description": ""} | (schema if isinstance(schema, dict) else {})
        for name, schema in parameters["properties"].items()
    }
    return tool | {"function": function | {"parameters": parameters | {"properties": properties}}}


def variables(tools: list[dict[str, Any]], *, lists: bool) -> dict[str, Any]:
    """Return the variables for `definitions`; for some templates `lists` stand for none of them in place of null."""
    if not lists:
        return {"tools": tools or None, "documents": None}
    # Firefunction's template, which is one of these, takes them as a text.
    return {"tools": tools, "documents": [], "functions": json.dumps(tools, indent=2) if tools else ""}


def introduction(tools: Sequence[Tool], example: str | None) -> str:
    """Return what a model has to know, for a template that does not show it tools; `example` is how it writes calls."""
    return _INTRODUCTION.format(tools="\n".join(map(_json, definitions(tools))), example=example or _EXAMPLE)


def calls(made: Sequence[ToolCall], style: str) -> str:
    """Return calls as a model writes them: as `wire.chat.template.TemplateHabits.calls_as` names the style."""
    objects = [{"name": call.name, "arguments": arguments(call)} for call in made]
    if style == "python":
        written = ", ".join(f"{call.name}({_python(arguments(call))})" for call in made)
        return f"<|tool_call_start|>[{written}]<|tool_call_end|>"
    if style == "array":
        return f"<|tool_call|>{_json(objects)}"
    return "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in objects)


def result(text: str) -> str:
    return f"<tool_response>\n{text}\n</tool_response>"


def arguments(call: ToolCall) -> dict[str, Any]:
    """Return a call's arguments; what a model has written that is no JSON object is kept under a name of its own."""
    try:
        found = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return {"arguments": call.arguments}
    return found if isinstance(found, dict) else {"arguments": found}


def _python(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
