"""`rbee token`: prints the swarm's token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import tokens
from rbee.keeper.output.result import Result

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal


def run(_options: Options, settings: Settings, _terminal: Terminal) -> Result:
    """Return the token; creates it if there is none, because a script may ask before the first queen has run."""
    return Result(text=tokens.load_or_create(settings.token_file))
