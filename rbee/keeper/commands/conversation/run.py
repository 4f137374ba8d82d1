"""`rbee run`: one answer of a model, or a chat with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from rbee.keeper.commands import infer
from rbee.keeper.commands.conversation import chat

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import ChatOptions, RunOptions
    from rbee.keeper.output.result import Result
    from rbee.keeper.output.terminal import Terminal

STDIN = 0


def run(options: RunOptions, settings: Settings, terminal: Terminal) -> Result:
    """Answer the words, or what is piped in; without either, and where somebody sits there, talk."""
    options.prompt = " ".join(options.words) or None
    if options.prompt is None and not options.json and os.isatty(STDIN):
        return chat.run(cast("ChatOptions", options), settings, terminal)
    return infer.run(options, settings, terminal)
