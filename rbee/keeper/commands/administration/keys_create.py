"""`rbee keys create`: makes an API key, and prints it this once."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from rbee.keeper.command_line.checked import convert
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.workers import moment
from rbee.wire.addresses import is_loopback
from rbee.wire.administration.keys import KeyRequest
from rbee.wire.common import FOREVER

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import KeyOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.administration.keys import NewKey


def run(options: KeyOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the key alone as text, so that a script can take it; what it is for goes to stderr."""
    models = [name.strip() for given in options.models or () for name in given.split(",") if name.strip()]
    expires = None if options.expires in (None, FOREVER) else options.expires
    asked = convert({"name": options.name, "models": models, "expires_s": expires}, KeyRequest)

    async def make(queen: AttachedQueen) -> tuple[NewKey, str]:
        return await queen.create_key(asked), queen.url

    made, url = session.ask(options, settings, terminal, make)
    info = made.info
    until = "until it is revoked" if info.expires_unix is None else f"until {moment(info.expires_unix)}"
    what = ", ".join(info.models) or "all models"
    note = f"The key {info.name}, shown this once: for {what}, {until}. Base URL: {url}/v1"
    if is_loopback(urlsplit(url).hostname or ""):
        note += " on this machine; for others, the address that `rbee up --lan` prints."
    return Result(data=msgspec.to_builtins(made), text=made.key, notes=(note,))
