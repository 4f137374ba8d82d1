"""Decides which sentences of the daemons stay on the user's screen (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rbee.wire.common import Narration

_STEPS: Final = frozenset({
    "start_queen", "version", "choose", "choose_node", "choose_worker", "ssh_connect", "ssh_tunnel", "start_hive",
    "hive_ready", "preflight", "http_ready", "ready_callback", "inference_start",
    "inference_end",
})  # fmt: skip
"""Steps of every start, which take a moment and say nothing afterwards; the end is said by the last line."""
_STAGES: Final = frozenset({
    "wait", "start", "loaded", "cache", "download", "copy", "download_complete", "push", "push_complete", "ssh_test",
    "ssh_ready", "configure", "build", "try", "shutdown",
})  # fmt: skip
"""What may take long, so that a log should have it, and is of no interest on a terminal once it is over."""


def is_passing(event: Narration) -> bool:
    """Whether the next sentence may replace this one on a terminal; of an unknown action it must not."""
    return event.action in _STEPS or event.action in _STAGES


def is_logged(event: Narration) -> bool:
    """Whether the sentence is a line of its own where nothing can be replaced: in a file, a pipe, a journal."""
    return event.action not in _STEPS
