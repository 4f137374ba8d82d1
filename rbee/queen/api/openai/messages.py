"""Reads the messages of a request (PURE).

Histories are taken as clients really send them; what makes no sense in any model's template is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Final

from rbee.queen.api.attribution import remove_attribution
from rbee.queen.api.refusal import refused, unsupported
from rbee.wire.chat.conversation import ChatMessage, ImagePart, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.chat.conversation import Part, Role
    from rbee.wire.dialects.openai_messages import OpenAICalledFunction, OpenAIMessage, OpenAIPart

_ROLES: Final[dict[str, Role]] = {"developer": "system", "function": "tool"}
"""Those that are called otherwise here."""
_PICTURE: Final = re.compile(r"data:(image/[\w.+-]{1,60})(?:;[\w=.+-]{1,60})*;base64,", re.IGNORECASE)


def messages_of(messages: Sequence[OpenAIMessage], *, sees: bool) -> list[ChatMessage]:
    """Return the messages of a conversation; raises InvalidRequestError.

    With `sees` there are models that can look at pictures; else those are refused.
    """
    return _History(sees=sees).read(messages)


class _History:
    """The messages so far: which calls there were, and which of them nobody has answered.

    There may be some hundred thousand calls, so that none of them is looked for one by one.
    """

    def __init__(self, *, sees: bool) -> None:
        self._sees = sees
        self._calls: dict[str, str] = {}
        """The tool that each of them calls, by the call's id."""
        self._unanswered: OrderedDict[str, None] = OrderedDict()
        self._unanswered_of: dict[str, OrderedDict[str, None]] = {}
        """The same, by the tool."""
        self._numbers = count()

    def read(self, messages: Sequence[OpenAIMessage]) -> list[ChatMessage]:
        found = [self._message(message, f"messages[{index}]") for index, message in enumerate(messages)]
        if len(found) > 1 and found[-1] == ChatMessage(role="assistant"):
            found.pop()  # chat windows send the empty place of the answer that is to come
        remove_attribution(found)
        return found

    def _message(self, message: OpenAIMessage, field: str) -> ChatMessage:
        role = message.role
        if role in ("tool", "function"):
            return self._result(message, field)
        found = ChatMessage(
            role=_ROLES.get(role, role),  # type: ignore[arg-type]  # all others are called alike
            content=self._content(message.content, field),
            name=message.name,
        )
        if role == "assistant":
            if message.content is None and message.refusal:
                found.content = [TextPart(text=message.refusal)]
            found.reasoning = message.reasoning_content or message.reasoning or None
            found.tool_calls = self._made_calls(message, field)
        elif message.content is None:
            raise refused(f"{field}.content", "required")
        return found

    def _made_calls(self, message: OpenAIMessage, field: str) -> list[ToolCall]:
        calls = []
        for index, call in enumerate(message.tool_calls or []):
            if call.type not in (None, "", "function"):
                raise unsupported(f"{field}.tool_calls[{index}].type", "function is the only kind of call here")
            if call.function is None:
                raise refused(f"{field}.tool_calls[{index}].function", "required")
            calls.append(self._made_call(call.id, call.function))
        if message.function_call is not None and not calls:
            calls.append(self._made_call(None, message.function_call))
        return calls

    def _made_call(self, call_id: str | None, function: OpenAICalledFunction) -> ToolCall:
        call_id = call_id or self._free_id()
        self._note_answered(call_id)  # some clients name calls anew in each turn
        self._calls[call_id] = function.name
        self._unanswered[call_id] = None
        self._unanswered_of.setdefault(function.name, OrderedDict())[call_id] = None
        arguments = function.arguments or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(id=call_id, name=function.name, arguments=arguments)

    def _free_id(self) -> str:
        return next(name for number in self._numbers if (name := f"call_{number}") not in self._calls)

    def _note_answered(self, call_id: str) -> None:
        if call_id in self._unanswered:
            del self._unanswered[call_id]
            del self._unanswered_of[self._calls[call_id]][call_id]

    def _result(self, message: OpenAIMessage, field: str) -> ChatMessage:
        call_id = message.tool_call_id or self._next_unanswered(message.name)
        if call_id is None or call_id not in self._calls:
            where = "tool_call_id" if message.role == "tool" else "name"
            raise refused(f"{field}.{where}", "answers no call that the assistant has made before")
        self._note_answered(call_id)
        content = self._content(message.content, field)
        return ChatMessage(role="tool", content=content, name=self._calls[call_id], tool_call_id=call_id)

    def _next_unanswered(self, name: str | None) -> str | None:
        """Return the first call without a result, for clients that do not say which one they answer."""
        waiting = self._unanswered if name is None else self._unanswered_of.get(name, OrderedDict())
        return next(iter(waiting), None)

    def _content(self, content: str | list[OpenAIPart] | None, field: str) -> list[Part]:
        if isinstance(content, str):
            return [TextPart(text=content)] if content else []
        return [self._part(part, f"{field}.content[{index}]") for index, part in enumerate(content or [])]

    def _part(self, part: OpenAIPart, field: str) -> Part:
        match part.type:
            case "text" | "input_text" | "output_text":
                text, name = part.text, "text"
            case "refusal":
                text, name = part.refusal, "refusal"
            case "image_url":
                return self._picture(part, field)
            case "input_audio" | "file" | "video_url" | "audio_url":
                raise unsupported(f"{field}.type", "the models here read text, no sound and no files")
            case _:
                raise refused(f"{field}.type", "text, or image_url with a model that can see")
        if text is None:
            raise refused(f"{field}.{name}", "required")
        return TextPart(text=text)

    def _picture(self, part: OpenAIPart, field: str) -> ImagePart:
        if not self._sees:
            raise unsupported(f"{field}.type", "no model here can look at pictures")
        if part.image_url is None:
            raise refused(f"{field}.image_url", "required")
        url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        if (found := _PICTURE.match(url)) is None:
            # Fetching addresses that a client names would open the queen's network to it.
            raise refused(f"{field}.image_url.url", "data:image/TYPE;base64,DATA: nothing is fetched from the network")
        try:
            data = base64.b64decode(url[found.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise refused(f"{field}.image_url.url", "base64") from None
        return ImagePart(media_type=found[1].lower(), data=data)
