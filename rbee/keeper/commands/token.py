"""`rbee token`: prints the swarm's token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import tokens
from rbee.errors import StorageError
from rbee.keeper.output.result import Result
from rbee.keeper.session.queen_address import configured
from rbee.wire.addresses import is_loopback

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal


def run(_options: Options, settings: Settings, _terminal: Terminal) -> Result:
    """Return the token; creates it if there is none, because a script may ask before the first queen has run.

    Not where another queen is named, whose token only its own machine can make.
    """
    address, file = configured(settings), settings.token_file
    if address.is_named and not is_loopback(address.machine) and tokens.read(file) is None:
        raise StorageError(
            f"the token of the queen at {address.host} is not in {file}, and only that queen can make it",
            hint=f"`ssh {address.machine} rbee token` prints it",
        )
    return Result(text=tokens.load_or_create(settings.token_file))
