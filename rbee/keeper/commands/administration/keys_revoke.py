"""`rbee keys revoke`: makes an API key good for nothing, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.administration.keys import KeyRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import NodeNameOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: NodeNameOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return how many requests it had, which were ended."""
    convert({"name": options.name}, KeyRequest)
    revoked = session.ask(options, settings, terminal, lambda queen: queen.revoke_key(options.name))
    ended = f"; {render.plural(revoked.ended, 'request')} of it ended" if revoked.ended else ""
    note = f"The key {revoked.name} is revoked{ended}."
    return Result(data=msgspec.to_builtins(revoked), notes=(note,))
