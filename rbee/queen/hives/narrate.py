"""Reports a step of the queen's work on a node to the caller of the running request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.wire.common import Narration

if TYPE_CHECKING:
    from rbee.wire.progress import Report


def narrate(report: Report, node: str, action: str, human: str) -> None:
    """Report `action` on `node`, in words for people."""
    report(Narration(actor="queen-rbee", action=action, target=node, human=human))
