"""`rbee token`: prints the swarm's token."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rbee.adapters import tokens
from rbee.errors import RbeeError, StorageError
from rbee.keeper.output.result import Result
from rbee.keeper.session.queen_address import configured
from rbee.wire.addresses import is_loopback, reachable

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal

CONNECT_SECONDS: Final = 1.0


def run(_options: Options, settings: Settings, _terminal: Terminal) -> Result:
    """Return the token; creates it if there is none, because a script may ask before the first queen has run.

    Not where another queen is named, whose token only its own machine can make, nor where one runs that has another.
    """
    address, file = configured(settings), settings.token_file
    if address.is_named and tokens.read(file) is None:
        there = "`rbee token`, for the user and on the machine that it belongs to,"
        raise StorageError(
            f"the token of the queen at {address.host} is not in {file}, and only that queen can make it",
            hint=f"{there if is_loopback(address.machine) else f'`ssh {address.machine} rbee token`'} prints it",
        )
    if not address.is_named and tokens.read(file) is None and _is_taken(settings.queen.host, settings.queen.port):
        _check_queen(settings)
    return Result(text=tokens.load_or_create(settings.token_file))


def _is_taken(host: str, port: int) -> bool:
    """Whether something listens at our queen's address; to ask what takes much longer."""
    with suppress(OSError, UnicodeError), socket.create_connection((reachable(host), port), timeout=CONNECT_SECONDS):
        return True
    return False


def _check_queen(settings: Settings) -> None:
    """Raise StorageError for a queen that would not take a new token."""
    from rbee.keeper.session import interrupt, other_swarm, running_queen

    async def command(_: trio.Event) -> running_queen.RunningQueen | None:
        try:
            return await running_queen.find(settings)
        except RbeeError:
            return None  # what listens there is no queen

    found = interrupt.run(command)
    if found is not None and (found.own is not None or other_swarm.is_another(found, settings)):
        raise other_swarm.without_token(found, settings)
