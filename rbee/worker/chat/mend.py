"""Makes of a conversation what its model's template takes (PURE).

Histories come from many programs and were written for other models. What a template would refuse or leave out is put
another way, as llama.cpp does it (common/chat.cpp), so that nothing of it is lost.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from rbee.errors import InvalidRequestError
from rbee.wire.chat.conversation import ImagePart, TextPart
from rbee.worker.chat import effort, tool_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rbee.wire.chat.conversation import ChatMessage, Conversation, ToolCall
    from rbee.wire.chat.template import TemplateHabits

RESERVED: Final = frozenset((
    "messages", "tools", "functions", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token",
    "raise_exception", "strftime_now", "range", "dict", "lipsum", "cycler", "joiner", "namespace", "self", "super",
    "caller", "varargs", "kwargs", "loop", "true", "false", "none", "True", "False", "None",
))  # fmt: skip
"""Variables that a caller must not set: they are the conversation's own, or the language's."""
_SHORT_ID: Final = 9
_NOTHING: Final = " "
"""Said in a turn that has to be there: an empty text is refused by some."""


def check(conversation: Conversation) -> None:
    """Raise InvalidRequestError for what no template could be given."""
    for number, message in enumerate(conversation.messages):
        if any(isinstance(part, ImagePart) for part in message.content):
            raise _invalid(
                f"messages[{number}].content", "this model reads no pictures: it has no projector for them", "text only"
            )
    if taken := sorted(set(conversation.arguments) & RESERVED):
        raise _invalid("arguments", f"{taken[0]} is not for callers to set", f"none of {', '.join(sorted(RESERVED))}")
    choice, offered = conversation.tool_choice, {tool.name for tool in conversation.tools}
    if not offered.issuperset(choice.names) or (choice.mode == "required" and not offered):
        raise _invalid("tool_choice", "what has to be called is not offered", "a tool among those that are offered")
    last = conversation.messages[-1]
    if conversation.continues and last.role != "assistant":
        raise _invalid(
            "continues", f"the last message is of the role {last.role}", "the last message is an assistant's"
        )
    if conversation.continues and last.tool_calls:
        raise _invalid("continues", "the last message holds tool calls", "a text to be continued")


def _invalid(field: str, what: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError(f"field {field}: {what}", field=field, rule=rule)


def is_small(conversation: Conversation, most: int) -> bool:
    """Whether there are at most so many characters to be looked at, with a hundred for whatever holds them."""
    left = most
    values: list[Any] = [conversation.arguments, *(tool.parameters for tool in conversation.tools)]
    for message in conversation.messages:
        values += (part.text for part in message.content if isinstance(part, TextPart))
        values += (call.arguments for call in message.tool_calls)
        values.append(message.reasoning)
    while values and left >= 0:
        value = values.pop()
        left -= 100 + (len(value) if isinstance(value, str | dict | list) else 0)
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
    return left >= 0


def has_tools(conversation: Conversation) -> bool:
    """Whether the model is to know of tools: of those that it must not call it had better not."""
    return bool(conversation.tools) and conversation.tool_choice.mode != "none"


def variables(conversation: Conversation, habits: TemplateHabits) -> Iterator[dict[str, Any]]:
    """Yield the variables for the template: as the conversation was meant, then for a template that refuses that.

    There user and model take strict turns, as they do at once where it is known that it takes no others, and every
    argument of a tool has a description.
    """
    turns = _turns(conversation, habits)
    tools = tool_text.definitions(conversation.tools) if has_tools(conversation) and habits.tools else []
    fixed = effort.variables(conversation.effort, habits) | tool_text.variables(tools, lists=habits.lists)
    fixed |= conversation.arguments | {"add_generation_prompt": not conversation.continues}
    strict = _strict(turns) if habits.strict_turns else turns
    yield fixed | {"messages": [_message(turn, habits) for turn in strict]}
    if tools:
        fixed |= tool_text.variables([tool_text.described(tool) for tool in tools], lists=habits.lists)
    elif habits.strict_turns:
        return
    yield fixed | {"messages": [_message(turn, habits) for turn in _strict(turns)]}


class ChatTurn(NamedTuple):
    """A message on its way to the template; `call_name` is the tool that a result comes from."""

    role: str
    text: str
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None


def _turns(conversation: Conversation, habits: TemplateHabits) -> list[ChatTurn]:
    turns = [
        ChatTurn("user", tool_text.result(turn.text)) if is_lone and not habits.lone_results else turn
        for turn, is_lone in _with_results_named([_turn(message) for message in conversation.messages])
    ]
    turns = _with_system(turns, conversation, habits)
    turns = [part for turn in turns for part in _as_shown(turn, habits)]
    if not habits.parallel_calls:
        turns = list(_one_call_each(turns))
    return turns


def _turn(message: ChatMessage) -> ChatTurn:
    # One text: the parts of which it was made could be a control token together.
    text = "\n".join(part.text for part in message.content if isinstance(part, TextPart))
    if message.role != "assistant":
        return ChatTurn(message.role, text, call_id=message.tool_call_id, name=message.name)
    return ChatTurn(message.role, text, message.reasoning or None, tuple(message.tool_calls))


def _with_results_named(turns: list[ChatTurn]) -> Iterator[tuple[ChatTurn, bool]]:
    """Yield the turns; each result knows its call, by its id or its place, and that call's tool.

    With each stands whether it is a result without a call.
    """
    open_calls = _OpenCalls(())
    for turn in turns:
        if turn.role != "tool":
            open_calls = _OpenCalls(turn.calls)
            yield turn, False
            continue
        call = open_calls.take(turn.call_id)
        if call is not None:
            turn = turn._replace(call_id=call.id, name=call.name)  # noqa: PLW2901 (the same turn)
        yield turn, call is None


class _OpenCalls:
    """The calls of one message that have no result yet; there may be thousands, and as many results."""

    def __init__(self, calls: Sequence[ToolCall]) -> None:
        self._calls = OrderedDict(enumerate(calls))
        self._places: dict[str | None, deque[int]] = {}
        for place, call in self._calls.items():
            self._places.setdefault(call.id, deque()).append(place)

    def take(self, call_id: str | None) -> ToolCall | None:
        """Return the call of this id, else the first, which is open no longer then; None where none is open."""
        places = self._places.get(call_id, deque())
        while places:
            if (call := self._calls.pop(places.popleft(), None)) is not None:
                return call
        return self._calls.popitem(last=False)[1] if self._calls else None


def _with_system(turns: list[ChatTurn], conversation: Conversation, habits: TemplateHabits) -> list[ChatTurn]:
    """Return the turns with one system message at the beginning, or none, and others where the template shows them."""
    first = next((number for number, turn in enumerate(turns) if turn.role != "system"), len(turns))
    texts = [turn.text for turn in turns[:first] if turn.text]
    if has_tools(conversation) and not habits.tools:
        texts.append(tool_text.introduction(conversation.tools, habits.call_example))
    if conversation.effort == "none" and habits.no_think:
        texts.append(habits.no_think)
    rest = [
        turn if habits.later_system or turn.role != "system" else turn._replace(role="user") for turn in turns[first:]
    ]
    text = "\n\n".join(texts)
    if not text:
        return [ChatTurn("system", ""), *rest] if habits.needs_system else rest
    if habits.system or habits.needs_system:
        return [ChatTurn("system", text), *rest]
    for number, turn in enumerate(rest):
        if turn.role == "user":
            return [*rest[:number], turn._replace(text=_joined(text, turn.text)), *rest[number + 1 :]]
    return [ChatTurn("user", text), *rest]


def _as_shown(turn: ChatTurn, habits: TemplateHabits) -> Iterator[ChatTurn]:
    """Yield what a turn becomes where the template does not show calls, results, or a text beside calls."""
    if turn.role == "tool" and not habits.results:
        yield ChatTurn("user", tool_text.result(turn.text))
    elif turn.calls and not habits.calls:
        written = tool_text.calls(turn.calls, habits.calls_as)
        yield turn._replace(text=f"{turn.text}\n{written}" if turn.text else written, calls=())
    elif turn.calls and turn.text and not habits.content_and_calls:
        yield turn._replace(calls=())
        yield turn._replace(text="", reasoning=None)
    elif turn.calls and turn.text and turn.reasoning and not habits.content_and_reasoning:
        yield turn._replace(text="", reasoning=_joined(turn.reasoning, turn.text))
    else:
        yield turn


def _one_call_each(turns: list[ChatTurn]) -> Iterator[ChatTurn]:
    """Yield the turns with one call in each message, which its results follow."""
    at = 0
    while at < len(turns):
        turn = turns[at]
        at += 1
        if len(turn.calls) < 2:
            yield turn
            continue
        results: dict[str | None, list[ChatTurn]] = {}
        while at < len(turns) and turns[at].role == "tool":
            results.setdefault(turns[at].call_id, []).append(turns[at])
            at += 1
        for place, call in enumerate(turn.calls):
            yield turn._replace(calls=(call,)) if place == 0 else ChatTurn("assistant", "", calls=(call,))
            yield from results.pop(call.id, ())
        for others in results.values():
            yield from others


def _strict(turns: list[ChatTurn]) -> list[ChatTurn]:
    """Return the turns so that a user's and the model's alternate, calls and results not counted, each behind its call.

    Of what the model says before a call and after it one message becomes.
    """
    # Each with the texts that it is made of: joined one by one, ten thousand messages of 15 MB took two minutes.
    strict = [(turn, [turn.text]) for turn in turns[:1] if turn.role == "system"]
    counted = ""
    for turn in turns[len(strict) :]:
        last = strict[-1][0] if strict else None
        if turn.role == "tool" and not (last is not None and (last.role == "tool" or last.calls)):
            turn = ChatTurn("user", tool_text.result(turn.text))  # noqa: PLW2901 (the same turn)
        texts = [turn.text]
        if turn.role == "tool" or turn.calls:
            strict.append((turn, texts))
            continue
        if turn.role == "assistant" and not counted:
            strict.append((ChatTurn("user", ""), [_NOTHING]))
        elif turn.role == counted == "user" and strict[-1][0].role != "user":
            strict.append((ChatTurn("assistant", ""), [_NOTHING]))
        elif turn.role == counted:
            places = range(len(strict) - 1, -1, -1)
            before, texts = strict.pop(
                next(at for at in places if strict[at][0].role == counted and not strict[at][0].calls)
            )
            texts.append(turn.text)
            turn = turn._replace(reasoning=before.reasoning or turn.reasoning)  # noqa: PLW2901 (both)
        strict.append((turn, texts))
        counted = turn.role
    return [turn._replace(text=_joined(*texts)) for turn, texts in strict]


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _message(turn: ChatTurn, habits: TemplateHabits) -> dict[str, Any]:
    content: Any = turn.text
    if habits.parts and turn.role != "tool":
        content = [{"type": "text", "text": turn.text}]
    if turn.calls and not turn.text:
        content = None if habits.calls_content == "null" else ""
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.calls:
        message["tool_calls"] = [_call(call, habits) for call in turn.calls]
    if turn.reasoning and habits.reasoning:
        message[habits.reasoning] = turn.reasoning
    if turn.role == "tool":
        message["tool_call_id"] = _id(turn.call_id or "", habits)
    if turn.name:
        message["name"] = turn.name
    return message


def _call(call: ToolCall, habits: TemplateHabits) -> dict[str, Any]:
    arguments: Any = call.arguments or "{}"
    if habits.arguments == "object":
        arguments = tool_text.arguments(call)
    function = {"name": call.name, "arguments": arguments}
    return {"id": _id(call.id, habits), "type": "function", "function": function}


def _id(given: str, habits: TemplateHabits) -> str:
    """Return an id as the template wants it: Mistral's takes nine letters and digits."""
    if not habits.short_ids or (len(given) == _SHORT_ID and given.isascii() and given.isalnum()):
        return given
    return hashlib.sha256(given.encode()).hexdigest()[:_SHORT_ID]


def with_end(conversation: Conversation, mark: str) -> Conversation:
    """Return a conversation with a mark at the end of the last text of a user or a tool, before white space there.

    Templates strip that, and look whether there is any text.
    """
    messages = list(conversation.messages)
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        text = "\n".join(part.text for part in message.content if isinstance(part, TextPart))
        if message.role in ("user", "tool") and (kept := text.rstrip()):
            messages[at] = replace(message, content=[TextPart(text=kept + mark + text[len(kept) :])])
            break
    return replace(conversation, messages=messages)


def with_word(conversation: Conversation, word: str) -> Conversation:
    """Return a conversation whose last message ends with this word."""
    *others, last = conversation.messages
    text = "\n".join(part.text for part in last.content if isinstance(part, TextPart))
    return replace(conversation, messages=[*others, replace(last, content=[TextPart(text=text + word)])])
