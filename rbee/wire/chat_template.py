"""What a worker and the process that renders a chat template tell each other."""

from __future__ import annotations

from rbee.wire.common import Message


class ChatTemplate(Message, kw_only=True):
    """A template, and the texts of the tokens that begin and end a text."""

    template: str
    begin: str
    end: str


class ChatFrame(Message, kw_only=True):
    """What stands before and after a prompt; `strips` says that white space around the prompt goes away."""

    before: str
    after: str
    strips: bool
