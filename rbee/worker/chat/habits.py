"""Finds out by rendering what a template takes and shows of a conversation."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

from rbee.wire.chat.template import TemplateHabits
from rbee.worker.chat import effort, tool_text
from rbee.worker.chat.framing import FAILURES, Renderer, Shape, UnusableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARGUMENTS: Final[tuple[Literal["object", "text"], ...]] = ("object", "text")
_NO_CONTENT: Final[tuple[Literal["empty", "null"], ...]] = ("empty", "null")
_REASONING: Final = ("reasoning_content", "thinking", "reasoning")
"""Names of the field, likeliest first: several that are given at once would be shown twice by some templates."""
_ID: Final = "call_a1B2c3D4e5"
_SHORT_ID: Final = "a1B2c3D4e"
_SYSTEM, _USER, _AGAIN, _ANSWER, _THOUGHT, _RESULT = (
    f"Q{word}Z" for word in ("system", "user", "again", "answer", "thought", "result")
)
_NAME, _OTHER, _KEY, _VALUE = (f"q{word}z" for word in ("tool", "other", "key", "value"))
_ODD_ARGUMENTS: Final = re.compile(rf"""{{'{_KEY}'|\\"{_KEY}""")
"""Arguments as Python writes an object, or as JSON in JSON."""


def habits(renderer: Renderer, shape: Shape, source: str) -> TemplateHabits:
    """Return what a template does whose messages have this shape; `source` is its text."""
    return _Probe(renderer, shape, source).find()


class _Probe:
    def __init__(self, renderer: Renderer, shape: Shape, source: str) -> None:
        self._renderer = renderer
        self._shape = shape
        self._source = source
        self._found = TemplateHabits(parts=shape.is_list, lists=shape.has_lists, needs_system=shape.has_system)

    def find(self) -> TemplateHabits:
        found = self._found
        user, again = self._user(_USER), self._user(_AGAIN)
        system = self._message("system", _SYSTEM)
        found.system = self._shows([system, user], _SYSTEM, _USER)
        found.later_system = self._shows(
            [user, self._message("assistant", _ANSWER), system, again], _SYSTEM, _AGAIN
        ) and self._shows([user, system, again], _SYSTEM, _USER, _AGAIN)
        answer = self._message("assistant", _ANSWER)
        found.strict_turns = all(
            self._rendered(messages) is None for messages in ([user, again], [user, answer, answer, again])
        )
        found.tools = self._shows([user], _NAME, _KEY, tools=[_NAME])
        self._find_calls()
        self._find_results()
        if found.calls and not found.tools:
            found.call_example = self._call_example()
        found.reasoning = next(filter(self._shows_reasoning, _REASONING), None)
        found.content_and_reasoning = self._takes_content_beside_reasoning()
        self._find_thinking()
        return found

    def _user(self, text: str) -> dict[str, Any]:
        return self._message("user", text)

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": self._shape.content(text)}

    def _rendered(self, messages: list[dict[str, Any]], tools: Sequence[str] = (), **more: Any) -> str | None:
        """Return what comes of some messages; None where the template does not take them."""
        if self._shape.has_system and messages[0]["role"] != "system":
            messages = [self._message("system", ""), *messages]
        variables = {"messages": messages, "add_generation_prompt": True}
        variables |= tool_text.variables([_tool(name) for name in tools], lists=self._shape.has_lists)
        try:
            return self._renderer.render(variables | more, 1000)
        except (UnusableError, *FAILURES):
            return None

    def _shows(self, messages: list[dict[str, Any]], *words: str, **more: Any) -> bool:
        written = self._rendered(messages, **more)
        return written is not None and all(word in written for word in words)

    def _find_calls(self) -> None:
        """Find how calls have to be passed on. Where no way shows them, they have to be written as text."""
        found = self._found
        for short_ids, arguments, content in product((False, True), _ARGUMENTS, _NO_CONTENT):
            found.short_ids, found.arguments, found.calls_content = short_ids, arguments, content
            if self._shows_calls(self._calls(_NAME)):
                found.content_and_calls = self._shows_calls(self._calls(_NAME, content=_ANSWER), _ANSWER)
                found.parallel_calls = self._shows_calls(self._calls(_NAME, _OTHER), _OTHER)
                return
        found.calls, found.short_ids, found.arguments, found.calls_content = False, False, "object", "empty"
        # As the models write them whose templates show what they have written: LFM2, Granite 3.
        if "<|tool_list_start|>" in self._source or "List of tools: [" in self._source:
            found.calls_as = "python"
        elif "<|tool_call|>" in self._source:
            found.calls_as = "array"

    def _calls(self, *names: str, content: str = "", **more: Any) -> dict[str, Any]:
        found = self._found
        arguments: Any = {_KEY: _VALUE} if found.arguments == "object" else f'{{"{_KEY}": "{_VALUE}"}}'
        calls = [
            {"id": self._id(number), "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, name in enumerate(names)
        ]
        shown: Any = self._shape.content(content) if content else (None if found.calls_content == "null" else "")
        return {"role": "assistant", "content": shown, "tool_calls": calls} | more

    def _id(self, number: int) -> str:
        return f"{(_SHORT_ID if self._found.short_ids else _ID)[:-1]}{number}"

    def _shows_calls(self, message: dict[str, Any], *words: str) -> bool:
        tools = (_NAME, _OTHER)
        results = [self._result(number) for number in range(len(message["tool_calls"]))]
        written = self._rendered([self._user(_USER), message, *results], tools=tools)
        if written is None:
            return False
        # What is there without the calls: the tools, with their names.
        bare = self._rendered([self._user(_USER)], tools=tools) or ""
        if len(_ODD_ARGUMENTS.findall(written)) > len(_ODD_ARGUMENTS.findall(bare)):
            return False
        return all(written.count(word) > bare.count(word) for word in (_NAME, _VALUE, *words))

    def _call_example(self) -> str | None:
        """Return what the template writes for a call: what is there and not in a message of another text."""
        user = self._user(_USER)
        other = self._rendered([user, self._message("assistant", _ANSWER)], add_generation_prompt=False) or ""
        written = self._rendered([user, self._calls(_NAME)], add_generation_prompt=False) or ""
        before = _common(written, other)
        after = _common(written[:before:-1], other[:before:-1])
        end = len(written) - after
        if written.rfind("<", before, end) > written.rfind(">", before, end):
            end = written.find(">", end) + 1  # of a marker that ends as the next one does
        example = written[before:end]
        if not all(word in example for word in (_NAME, _KEY, _VALUE)):
            return None
        for word, meant in ((_NAME, "function_name"), (_KEY, "argument_name"), (_VALUE, "value")):
            example = example.replace(word, meant)
        return example

    def _result(self, number: int = 0) -> dict[str, Any]:
        return {"role": "tool", "content": _RESULT, "tool_call_id": self._id(number), "name": _NAME}

    def _find_results(self) -> None:
        first = self._calls(_NAME) if self._found.calls else self._message("assistant", _ANSWER)
        found = self._found
        loop = [self._user(_USER), first, self._result()]
        found.results = self._shows(loop, _RESULT, tools=self._tools())
        lone = [self._user(_USER), self._message("assistant", _ANSWER), self._result(), self._user(_AGAIN)]
        found.lone_results = found.results and self._shows(lone, _RESULT) and self._shows(lone[2:], _RESULT)
        # Some show it in the last message of a user alone, where that is the last of all.
        if found.system and found.results:
            system = self._message("system", _SYSTEM)
            found.system = self._shows([system, *loop], _SYSTEM, tools=self._tools())

    def _tools(self) -> tuple[str, ...]:
        return (_NAME,) if self._found.tools else ()

    def _shows_reasoning(self, field: str) -> bool:
        """Whether it is shown anywhere: most show it behind the last message of a user alone."""
        user, again = self._user(_USER), self._user(_AGAIN)
        histories = [[user, self._message("assistant", _ANSWER) | {field: _THOUGHT}, again]]
        if self._found.calls and self._found.results:
            histories.append([user, self._calls(_NAME, **{field: _THOUGHT}), self._result()])
        # DeepSeek's show it where thinking is turned on.
        return any(
            self._shows(messages, _THOUGHT, tools=self._tools(), **more)
            for messages in histories
            for more in ({}, effort.ON)
        )

    def _takes_content_beside_reasoning(self) -> bool:
        found = self._found
        if not found.reasoning or not found.calls or not found.content_and_calls:
            return True
        both = self._calls(_NAME, content=_ANSWER, **{found.reasoning: _THOUGHT})
        return self._shows([self._user(_USER), both, self._result()], _ANSWER, tools=self._tools())

    def _find_thinking(self) -> None:
        found, user = self._found, [self._user(_USER)]
        for name in effort.VARIABLES:
            if name in self._source:
                found.efforts[name] = self._efforts(name)
        quiet, eager = effort.variables("none", found), effort.variables("high", found)
        off = self._rendered(user, **quiet)
        found.thinking_off = off is not None and (
            off != self._rendered(user, **quiet | effort.ON)
            or any(
                effort.turns_off(quiet[name]) and off != self._rendered(user, **quiet | {name: eager[name]})
                for name in found.efforts
            )
        )
        if not found.thinking_off and "/no_think" in self._source:
            found.no_think = "/no_think"

    def _efforts(self, name: str) -> list[str]:
        user = [self._user(_USER)]
        nonsense = self._rendered(user, **effort.ON, **{name: "Qeffort"})
        if nonsense is not None and "Qeffort" in nonsense:
            return ["low", "medium", "high"]  # it is written into the prompt, as gpt-oss's is: no other was trained on
        taken = [value for value in effort.VALUES if self._rendered(user, **effort.ON, **{name: value}) is not None]
        # Some look for one word that means little or no thinking, and take all others for the opposite.
        known = [
            value for value in taken if effort.is_least(value) and re.search(rf"""['"]{value}['"]""", self._source)
        ]
        return [value for value in taken if value in known or not (known and effort.is_least(value))]


def _common(one: str, other: str) -> int:
    """Return how many letters two texts begin alike with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _tool(name: str) -> dict[str, Any]:
    properties = {_KEY: {"type": "string", "description": "A word"}}
    parameters = {"type": "object", "properties": properties, "required": [_KEY]}
    return {"type": "function", "function": {"name": name, "description": "A tool", "parameters": parameters}}
