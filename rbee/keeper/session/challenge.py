"""Chooses what a queen is asked to prove before it may have the swarm's token."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rbee.adapters import tokens
from rbee.adapters.http import port_users, proof
from rbee.errors import StorageError

if TYPE_CHECKING:
    from rbee.adapters.config import Settings


async def challenge(url: str, settings: Settings, *, is_named: bool) -> proof.Challenge | None:
    """Return the challenge for a queen at `url`; None where there is no token, which is said once it is needed.

    Where another user of this machine listens at the address that is ours by default, it has to be the queen itself: a
    program that asks a queen elsewhere for it would have the answer too.
    """
    try:
        token = tokens.read(settings.token_file)
    except StorageError:
        return None
    if token is None:
        return None
    must_be_there = not is_named and await port_users.strangers(url)
    return proof.challenge(token, "queen", at=urlsplit(url).netloc if must_be_there else "")
