"""What a worker knows of its model's chat template, from the load of the model to its end."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from rbee.errors import WorkerFailedError
from rbee.wire.chat.template import (
    ChatFrame,
    ChatTemplate,
    ChatText,
    ProbeTemplate,
    RenderPrompt,
    TemplateFound,
    TemplateRefusal,
)
from rbee.worker.chat import families, history, mend
from rbee.worker.chat.control import ControlMarks
from rbee.worker.chat.sandbox import TemplateSandbox
from rbee.worker.output.control_tokens import ControlTokens
from rbee.worker.output.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.wire.chat.conversation import Conversation
    from rbee.worker.chat.history import History
    from rbee.worker.engine.backend import Vocabulary

log = logging.getLogger(__name__)


class Chat:
    """What a model's template does.

    `frame` is what it puts around a prompt; `refusal` says why it cannot be used, where it cannot. With neither, the
    model has no template, and continues prompts as they are. Conversations are then written as `family` has them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.controls = ControlTokens({})
        self.marks = ControlMarks(self.controls)
        self.frame: ChatFrame | None = None
        self.refusal: str | None = None
        self.family: families.Family | None = None
        self._found: TemplateFound | None = None
        self._finding = trio.Lock()
        own = vocabulary.chat_template
        self._template = None if own is None else self._of(own, vocabulary.tools_template)
        self._sandbox: TemplateSandbox | None = None

    def _of(self, template: str, tools_template: str | None = None) -> ChatTemplate:
        begin, end = self._vocabulary.begin_text, self._vocabulary.end_text
        return ChatTemplate(template=template, tools_template=tools_template, begin=begin, end=end)

    async def load(self) -> None:
        """Find out what the model's own template does, or take that of its family, which is not asked until used."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._find_controls)
            if self._template is not None:
                self._sandbox = TemplateSandbox(self._template)
                nursery.start_soon(self._find_own, self._sandbox)
        if self._template is None or self.refusal is not None:
            await self.aclose()
            self.family = families.family_of(self.controls.names)
            self._template = self._of(self.family.template)
            self._sandbox = TemplateSandbox(self._template)

    async def _find_controls(self) -> None:
        def found() -> ControlTokens:
            return ControlTokens(self._vocabulary.control_tokens(), self._vocabulary.end_tokens())

        self.controls = await trio.to_thread.run_sync(found)
        self.marks = ControlMarks(self.controls)

    async def _find_own(self, sandbox: TemplateSandbox) -> None:
        try:
            reply = await sandbox.ask(ProbeTemplate())
        except WorkerFailedError as exc:
            reply = TemplateRefusal(reason=exc.message, kind="limits")
        if isinstance(reply, TemplateFound):
            self._found, self.frame = reply, reply.frame
            return
        assert isinstance(reply, TemplateRefusal)
        # repr: what a template says may hold control characters.
        log.warning("the model's chat template cannot be used, and prompts go to it as they are: %r", reply.reason)
        self.refusal = printable(reply.reason)

    async def rendered(self, prompt: str) -> str:
        """Return a marked prompt as a template that changes it renders it.

        Raises InvalidRequestError where the template does not take this one.
        """
        assert self._sandbox is not None
        reply = await self._sandbox.ask(RenderPrompt(prompt=prompt))
        if isinstance(reply, ChatText):
            return reply.text
        assert isinstance(reply, TemplateRefusal)
        raise history.refused(reply, field="prompt", hint="`--raw` gives the model the prompt as it is")

    async def history(self, conversation: Conversation) -> History:
        """Return a conversation as the model reads it. Raises InvalidRequestError for what no template takes."""
        mend.check(conversation)
        assert self._sandbox is not None
        assert self._template is not None
        found = await self._habits(self._sandbox)
        template = history.Written(self._sandbox, self._template.template, found.habits)
        if found.tools_habits is not None and mend.has_tools(conversation):
            assert self._template.tools_template is not None
            template = history.Written(self._sandbox, self._template.tools_template, found.tools_habits, tools=True)
        return await history.rendered(template, self.marks, conversation)

    async def _habits(self, sandbox: TemplateSandbox) -> TemplateFound:
        async with self._finding:
            if self._found is None:
                reply = await sandbox.ask(ProbeTemplate())
                if not isinstance(reply, TemplateFound):
                    raise WorkerFailedError("the chat template in place of the model's own could not be rendered")
                self._found = reply
            return self._found

    async def aclose(self) -> None:
        """End the process that renders."""
        if self._sandbox is not None:
            await self._sandbox.aclose()


@asynccontextmanager
async def open_chat(vocabulary: Vocabulary) -> AsyncIterator[Chat]:
    """Yield what is known of the template of a model; its process runs until the end."""
    chat = Chat(vocabulary)
    try:
        await chat.load()
        yield chat
    finally:
        await chat.aclose()
