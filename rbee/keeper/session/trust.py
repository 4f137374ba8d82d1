"""Decides whether the queen that answers may have the swarm's token, which opens everything to who has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.adapters.http import port_users
from rbee.adapters.http.own_address import is_of_this_machine
from rbee.keeper.session import other_swarm
from rbee.keeper.session.known_queens import KnownQueens
from rbee.keeper.session.queen_address import configured
from rbee.narrower_errors import KeyRefusedError

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.session.running_queen import RunningQueen


class Place(NamedTuple):
    """Where a queen is that may have the token: on this machine, and with which other users at its port."""

    is_here: bool
    strangers: frozenset[int] = port_users.NOBODY


async def check(queen: RunningQueen, settings: Settings) -> Place:
    """Raise KeyRefusedError unless the queen may have the token.

    At an address of this machine that nobody has named, this user's program or root's may, and another user's that
    proves to have it. Anywhere else a queen may that proves it, or is of the time before there were proofs and has
    never given one.
    """
    is_here = await is_of_this_machine(queen.address.machine)
    strangers = await port_users.strangers(queen.url) if is_here else port_users.NOBODY
    is_chosen = configured(settings).is_named or not is_here
    known = KnownQueens(settings)
    asked, health = queen.challenge, queen.health
    if asked is not None and asked.is_met_by(health.proof) and (is_chosen or asked.at or not strangers):
        if not is_here:
            known.add_proven(queen.url)
        return Place(is_here, strangers)
    if not is_chosen or queen.own is not None:
        if strangers:
            raise _unproven(queen, f"if it is the swarm's, of an earlier version, name it: --queen {queen.url}")
        return Place(is_here, strangers)
    if asked is not None and (health.proof is not None or health.api_version is not None):
        raise _unproven(queen, "another program answers in the place of the queen: see what runs there")
    if not is_here and known.has_proven(queen.url):
        more = f"if it was taken back to an earlier version, remove {known.path}"
        raise _unproven(queen, f"it has proven so before; {more}")
    return Place(is_here, strangers)


def _unproven(queen: RunningQueen, hint: str) -> KeyRefusedError:
    host = queen.address.host
    return KeyRefusedError(
        f"the queen at {host}{other_swarm.whose(queen)} does not prove that it has the swarm's token, which was not "
        "sent there",
        hint=hint,
        host=host,
    )
