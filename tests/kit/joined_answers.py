"""Pieces of an answer, joined: how a text was cut does not show in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rbee.wire.chat.answer import ReasoningDelta, TextDelta, ToolCallBegan, ToolCallDelta
from rbee.wire.chat.conversation import Tool
from rbee.worker.engine.detokenizer import Detokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.worker.output.answer_pieces import AnswerPiece
    from rbee.worker.output.families import ModelFamily

Joined = list[tuple[str, ...]]
"""("text", TEXT), ("reasoning", TEXT) and ("call", ID, NAME, ARGUMENTS), in their order."""


def joined(pieces: Iterable[AnswerPiece]) -> Joined:
    parts: Joined = []
    for piece in pieces:
        last = parts[-1] if parts else ("",)
        match piece:
            case TextDelta(text=text) if last[0] == "text":
                parts[-1] = ("text", last[1] + text)
            case TextDelta(text=text):
                parts.append(("text", text))
            case ReasoningDelta(text=text) if last[0] == "reasoning":
                parts[-1] = ("reasoning", last[1] + text)
            case ReasoningDelta(text=text):
                parts.append(("reasoning", text))
            case ToolCallBegan(id=call_id, name=name):
                parts.append(("call", call_id, name, ""))
            case ToolCallDelta(arguments=arguments):
                assert last[0] == "call"
                parts[-1] = (*last[:3], last[3] + arguments)
    return parts


def numbered(index: int, name: str) -> str:
    return f"call_{index}"


def parse(family: ModelFamily, pieces: Iterable[str], tools: Iterable[Tool] = (), **options: Any) -> Joined:
    parser = family.parser(list(tools), **{"new_id": numbered, **options})
    found = [event for piece in pieces for event in parser.feed(piece)]
    return joined([*found, *parser.finish()])


def bytewise(text: str) -> list[str]:
    """Return what a detokenizer makes of the single bytes."""
    detokenizer = Detokenizer()
    return [*(detokenizer.feed(bytes([byte])) for byte in text.encode()), detokenizer.finish()]


def meant(parts: Joined) -> list[Any]:
    """Return the same with the arguments decoded, and without ids."""
    return [(part[2], json.loads(part[3])) if part[0] == "call" else part for part in parts]


def tool(name: str, **properties: object) -> Tool:
    return Tool(name=name, parameters={"type": "object", "properties": properties})
