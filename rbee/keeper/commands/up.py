"""`rbee up`: starts a queen in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from rbee.adapters.http import own_address
from rbee.errors import AlreadyRunningError, SpawnTimeoutError
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import (
    changed_settings,
    child_queen,
    interrupt,
    other_swarm,
    queen_version,
    running_queen,
    trust,
)
from rbee.wire.addresses import is_loopback, is_unspecified
from rbee.wire.common import FOREVER, base_url

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import UpOptions
    from rbee.keeper.output.terminal import Terminal


RETRY_SECONDS: Final = 0.2
"""Seconds before a queen that does not answer yet is asked again."""


def run(options: UpOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the queen's address once it answers."""

    async def command(force: trio.Event) -> Result:
        limit = settings.timeouts.start
        with trio.move_on_after(limit):
            while True:
                if (found := await running_queen.find(settings)) is not None:
                    if other_swarm.is_another(found, settings):
                        raise other_swarm.refused(found)
                    await trust.check(found, settings)
                    return _running(found, settings, options)
                try:
                    ready = await child_queen.background(settings, terminal, options, force)
                except AlreadyRunningError:
                    # Another queen is starting or ending: soon it answers, or it is gone.
                    await trio.sleep(RETRY_SECONDS)
                else:
                    started = f"The queen answers at {ready.url} (pid {ready.pid}). `rbee down` stops it."
                    return Result(notes=(started, _until(settings, options), *_who_may(ready.url, settings, options)))
        raise SpawnTimeoutError(
            f"the queen was not ready within {limit:g} s", hint=f"its log is {settings.logs_dir / 'queen.log'}"
        )

    return interrupt.run(command)


def _until(settings: Settings, options: UpOptions) -> str:
    """Say until when models stay loaded."""
    keep = settings.queen.keep if options.keep is None else options.keep
    if keep == FOREVER:
        return "Models stay loaded until then."
    # The hives of other machines have settings of their own.
    after = render.duration(settings.timeouts.idle if keep is None else keep)
    return f"Models stay loaded until {after} after their last request; `rbee workers list` shows until when."


def _who_may(url: str, settings: Settings, options: UpOptions) -> tuple[str, ...]:
    """Say where programs find the queen, and what opens it to whom."""
    host = child_queen.EVERYWHERE if options.lan else settings.queen.host
    is_open = options.open or settings.api.open
    for_you = f"Base URL for clients of OpenAI's API: {url}/v1 (your own programs on this machine need no key)."
    if is_loopback(host):
        if is_open:
            return (for_you, "OPEN: every user of this machine may use models, without a key.")
        return (for_you, "`rbee keys create NAME` makes a key for others; `rbee up --lan` listens on the network too.")
    address = (own_address.outward() or "ADDRESS") if is_unspecified(host) else host
    there = base_url(address, urlsplit(url).port or 0)
    if is_open:
        opens = f"OPEN: everyone who reaches {there}/v1 may use models, without a key."
    else:
        opens = f"On the network: {there}/v1, with a key that `rbee keys create NAME` makes. HTTP is not encrypted."
    return (for_you, opens)


def _running(found: running_queen.RunningQueen, settings: Settings, options: UpOptions) -> Result:
    queen_version.check(found)
    if found.is_elsewhere:
        return Result(notes=(f"A queen answers at {found.url} already; none was started on this machine.",))
    if found.own is not None and found.own.ephemeral:
        raise AlreadyRunningError(
            f"the queen at {found.url} runs for another command only, and ends with it",
            hint="try again once that command has ended",
        )
    note = f"A queen is already running at {found.url}."
    given = [name for name in ("keep", "lan", "open") if getattr(options, name) not in (None, False)]
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        note += f" {flags} {'is' if len(given) == 1 else 'are'} for one that is started: `rbee down` first"
        note += ", or `rbee infer --keep`." if "keep" in given else "."
    more = (queen_version.note(found), changed_settings.note(found.own, settings))
    return Result(notes=(note, *filter(None, more)))
