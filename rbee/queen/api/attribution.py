"""Removes the line that Claude Code puts before its system prompt (PURE).

It names the client's version and a number that is another one in each request, for Anthropic's own books. A model that
read it could use nothing of what it has read before, since every prompt would begin in its own way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.wire.chat.conversation import TextPart

if TYPE_CHECKING:
    from rbee.wire.chat.conversation import ChatMessage

_LINE: Final = re.compile(r"x-anthropic-billing-header:[^\n]*\n*")


def remove_attribution(messages: list[ChatMessage]) -> None:
    """Remove the line from the first message, the system's; one of nothing else is removed as a whole."""
    if not messages or messages[0].role != "system" or not messages[0].content:
        return
    content = messages[0].content
    first = content[0]
    if not isinstance(first, TextPart) or (found := _LINE.match(first.text)) is None:
        return
    rest = first.text[found.end() :]
    content[:1] = [TextPart(text=rest)] if rest else []
    if not content and len(messages) > 1:
        del messages[0]
