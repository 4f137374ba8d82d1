"""Messages between a worker and the process that renders its chat template."""

from __future__ import annotations

from rbee.wire.common import Message


class ChatTemplate(Message, kw_only=True):
    """A template, and the texts of the tokens that begin and end a text; with `prompt` that is to be rendered in it."""

    template: str
    begin: str
    end: str
    prompt: str | None = None


class ChatFrame(Message, kw_only=True):
    """The text before and after a prompt; with `strips`, white space around the prompt is removed.

    With `changes` the template does something else to the prompt too, so that each has to be rendered.
    """

    before: str
    after: str
    strips: bool
    changes: bool = False


class ChatText(Message, kw_only=True):
    """A prompt as its template renders it."""

    text: str
