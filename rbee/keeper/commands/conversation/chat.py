"""`rbee chat`: a conversation with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper.chat.chat import ChatSession
from rbee.keeper.session import interrupt

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import ChatOptions
    from rbee.keeper.output.result import Result
    from rbee.keeper.output.terminal import Terminal


def run(options: ChatOptions, settings: Settings, terminal: Terminal) -> Result:
    """Talk until the user leaves; a model or an option that cannot be is refused before anything starts."""
    chat = ChatSession(options, settings, terminal)
    return interrupt.run(chat.run, on_interrupt=chat.on_interrupt)
