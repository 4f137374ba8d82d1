"""Messages between a worker and the process that renders its chat template."""

from __future__ import annotations

from rbee.wire.common import Message


class ChatTemplate(Message, kw_only=True):
    """A template, and the texts of the tokens that begin and end a text."""

    template: str
    begin: str
    end: str


class ChatFrame(Message, kw_only=True):
    """The text before and after a prompt; with `strips`, white space around the prompt is removed."""

    before: str
    after: str
    strips: bool
