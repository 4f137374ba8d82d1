"""Writes a conversation as its model was trained to read it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from msgspec.structs import replace

from rbee.errors import InvalidRequestError
from rbee.wire.chat.template import ChatText, RenderConversation, TemplateRefusal
from rbee.worker.chat import mend
from rbee.worker.chat.control import END, without_marks
from rbee.worker.output.printable import printable

if TYPE_CHECKING:
    from rbee.wire.chat.conversation import Conversation
    from rbee.wire.chat.template import TemplateHabits
    from rbee.worker.chat.control import ControlMarks
    from rbee.worker.chat.sandbox import TemplateSandbox

_SMALL: Final = 200_000
"""The size of a conversation that takes the event loop about a millisecond."""
_TAIL: Final = 4096
"""Characters of the end of a prompt, where the user's last text is not found in it."""


class History(NamedTuple):
    """A conversation as text, with marks in it (see `chat.control`).

    `tail` is what follows the last text of a user or a tool, without marks: it tells how the answer begins, and whether
    the model is thinking already. `template` and `habits` are those of the template that has written it.
    """

    text: str
    tail: str
    template: str
    habits: TemplateHabits


class Written(NamedTuple):
    """A template, where it is rendered, and how it is given conversations; with `tools` it is the one for those."""

    sandbox: TemplateSandbox
    template: str
    habits: TemplateHabits
    tools: bool = False


async def rendered(template: Written, marks: ControlMarks, conversation: Conversation) -> History:
    """Return a conversation as a template writes it. Raises InvalidRequestError for what that does not take."""
    text = await _whole(template, marks, mend.with_end(conversation, END))
    if END in text:
        tail = text.rpartition(END)[2]
    else:
        # A template that shows how Python writes a text shows the mark's number in place of it.
        text = await _whole(template, marks, conversation)
        tail = text[-_TAIL:]
    return History(text.replace(END, ""), without_marks(tail), template.template, template.habits)


async def _whole(template: Written, marks: ControlMarks, conversation: Conversation) -> str:
    """Return a conversation as it is written, up to where its last message is to be continued if it is."""
    if not conversation.continues:
        return await _first_taken(template, marks, conversation)
    word = f"end{secrets.token_hex(16)}"
    text = await _first_taken(template, marks, mend.with_word(conversation, word))
    before, found, _ = text.rpartition(word)
    # A template that leaves out the model's last message may still begin one.
    return before if found else await _begun(template, marks, conversation)


async def _begun(template: Written, marks: ControlMarks, conversation: Conversation) -> str:
    *others, last = conversation.messages
    if not others:
        return marks.marked(last.text())
    shorter = replace(conversation, messages=others, continues=False)
    return await _first_taken(template, marks, shorter) + marks.marked(last.text())


async def _first_taken(template: Written, marks: ControlMarks, conversation: Conversation) -> str:
    """Return the text of the first way to put a conversation that the template takes."""
    first: TemplateRefusal | None = None
    ways = mend.variables(conversation, template.habits)
    # A history may be of 30 MB, with thousands of calls in a message; most are ready before a thread has begun.
    is_small = mend.is_small(conversation, _SMALL)

    def prepared() -> RenderConversation | None:
        for variables in ways:
            return RenderConversation(variables=marks.all_marked(variables), tools=template.tools)
        return None

    while True:
        try:
            request = prepared() if is_small else await trio.to_thread.run_sync(prepared, abandon_on_cancel=True)
            if request is None:
                break
            reply = await template.sandbox.ask(request)
        except RecursionError:
            raise InvalidRequestError(
                "field messages: tools, arguments or parts are nested too deeply", field="messages", rule="less deep"
            ) from None
        if isinstance(reply, ChatText):
            return reply.text
        assert isinstance(reply, TemplateRefusal)
        # The first is about the conversation as it was sent.
        first = first or reply
        if reply.kind == "limits":
            break
    assert first is not None
    raise refused(first)


def refused(refusal: TemplateRefusal, *, field: str = "messages", hint: str | None = None) -> InvalidRequestError:
    """Return the error that a client gets, with the words of the template."""
    words = without_marks(printable(refusal.reason))
    verb = {"refuses": "refuses this", "fails": "cannot render this", "limits": "cannot render this"}[refusal.kind]
    return InvalidRequestError(
        f"field {field}: the model's chat template {verb}: {words}",
        hint=hint,
        field=field,
        rule="what the model's chat template takes",
    )
