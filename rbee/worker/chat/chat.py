"""What a worker knows of its model's chat template, from the load of the model to its end."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

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
from rbee.worker.chat.control import ControlTexts
from rbee.worker.chat.sandbox import TemplateSandbox

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

    def __init__(self, vocabulary: Vocabulary, controls: ControlTexts, template: ChatTemplate | None) -> None:
        self.controls: Final = controls
        self.frame: ChatFrame | None = None
        self.refusal: str | None = None
        self.family = families.family_of(controls.texts)
        self._own = template
        replaced = ChatTemplate(template=self.family.template, begin=vocabulary.begin_text, end=vocabulary.end_text)
        self._template = template or replaced
        self._replaced = replaced
        self._sandbox = TemplateSandbox(self._template)
        self._found: TemplateFound | None = None
        self._finding = trio.Lock()

    async def find(self) -> None:
        """Find out what the model's own template does, if it has one."""
        if self._own is None:
            return
        reply = await self._sandbox.ask(ProbeTemplate())
        if isinstance(reply, TemplateFound):
            self._found, self.frame = reply, reply.frame
            return
        assert isinstance(reply, TemplateRefusal)
        # repr: what a template says may hold control characters.
        log.warning("the model's chat template cannot be used, and prompts go to it as they are: %r", reply.reason)
        self.refusal = "".join(letter if letter.isprintable() else " " for letter in reply.reason)
        await self.aclose()
        self._template, self._sandbox = self._replaced, TemplateSandbox(self._replaced)

    async def rendered(self, prompt: str) -> str:
        """Return a marked prompt as a template that changes it renders it.

        Raises InvalidRequestError where the template does not take this one.
        """
        reply = await self._sandbox.ask(RenderPrompt(prompt=prompt))
        if isinstance(reply, ChatText):
            return reply.text
        assert isinstance(reply, TemplateRefusal)
        raise history.refused(reply, field="prompt", hint="`--raw` gives the model the prompt as it is")

    async def history(self, conversation: Conversation) -> History:
        """Return a conversation as the model reads it. Raises InvalidRequestError for what no template takes."""
        mend.check(conversation)
        found = await self._habits()
        template = history.Written(self._sandbox, self._template.template, found.habits)
        if found.tools_habits is not None and mend.has_tools(conversation):
            assert self._template.tools_template is not None
            template = history.Written(self._sandbox, self._template.tools_template, found.tools_habits, tools=True)
        return await history.rendered(template, self.controls, conversation)

    async def _habits(self) -> TemplateFound:
        async with self._finding:
            if self._found is None:
                # A family's template: its process is started for the first conversation.
                reply = await self._sandbox.ask(ProbeTemplate())
                if not isinstance(reply, TemplateFound):
                    raise WorkerFailedError("the chat template in place of the model's own could not be rendered")
                self._found = reply
            return self._found

    async def aclose(self) -> None:
        """End the process that renders."""
        await self._sandbox.aclose()


@asynccontextmanager
async def open_chat(vocabulary: Vocabulary) -> AsyncIterator[Chat]:
    """Yield what is known of the template of a model; its process runs until the end."""
    texts = await trio.to_thread.run_sync(vocabulary.control_tokens)
    chat = Chat(vocabulary, ControlTexts(texts), _own(vocabulary))
    try:
        await chat.find()
        yield chat
    finally:
        await chat.aclose()


def _own(vocabulary: Vocabulary) -> ChatTemplate | None:
    if vocabulary.chat_template is None:
        return None
    return ChatTemplate(
        template=vocabulary.chat_template,
        tools_template=vocabulary.tools_template,
        begin=vocabulary.begin_text,
        end=vocabulary.end_text,
    )
