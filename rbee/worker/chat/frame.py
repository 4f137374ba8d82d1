"""Puts a prompt between what its model's chat template writes before and after it (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.wire.chat.template import ChatFrame
    from rbee.worker.chat.control import ControlMarks
    from rbee.worker.engine.backend import Vocabulary


def tokens(vocabulary: Vocabulary, marks: ControlMarks, frame: ChatFrame, prompt: str) -> list[int]:
    """Return the tokens of a prompt in its frame; what looks like a control token in the prompt is text."""
    prompt = prompt.strip() if frame.strips else prompt
    return marks.tokens(vocabulary, f"{frame.before}{marks.marked(prompt)}{frame.after}")
