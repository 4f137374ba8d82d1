"""`rbee keys list`: lists the API keys, and what they were used for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from rbee.keeper.output import tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.administration.keys import ApiKey

_HEADINGS = ("name", "key", "models", "made", "expires", "last used", "requests", "prompt tokens", "tokens")


def run(options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return the keys by name; not the keys themselves, which nobody knows any more."""
    keys = session.ask(options, settings, terminal, lambda queen: queen.keys())
    notes = () if keys else ("There are no API keys; `rbee keys create NAME` makes one.",)
    text = tables.table(_HEADINGS, [_row(key) for key in keys], terminal.room) if keys else ""
    return Result(data={"keys": msgspec.to_builtins(keys)}, text=text, notes=notes)


def _row(key: ApiKey) -> tuple[object, ...]:
    expires = "never" if key.expires_unix is None else moment(key.expires_unix)
    if key.expires_unix is not None and key.expires_unix <= time.time():
        expires = "expired"
    return (
        key.name,
        f"{key.shown}…",
        ", ".join(key.models) or "all",
        moment(key.created_unix),
        expires,
        moment(key.last_used_unix),
        key.requests,
        key.prompt_tokens,
        key.generated_tokens,
    )
