"""Says which settings have changed since the queen that runs was started: it does not read them again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rbee.adapters import settings_in_use
from rbee.errors import DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.instance import Instance
    from rbee.errors import RbeeError

MAX_SHOWN: Final = 4
_ADDRESS: Final = ("queen.host", "queen.port")
ANEW: Final = "started anew (`rbee down`, then `rbee up`)"
_OF_FETCHING: Final = (DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError)


def note(own: Instance | None, settings: Settings) -> str | None:
    """Return what to say about a queen of ours; None where its settings are those of now."""
    if own is None or (used := settings_in_use.recorded(own.settings)) is None:
        return None
    # One that answers where it is looked for has no other address, whatever it was told to take.
    is_there = urlsplit(own.url).port == settings.queen.port
    changed = [one for one in settings_in_use.changed(used, settings) if not (is_there and one.key in _ADDRESS)]
    if not changed:
        return None
    shown = [f"{one.key} = {_text(one.now)} (it has {_text(one.used)})" for one in changed[:MAX_SHOWN]]
    more = f" and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else ""
    return f"The queen that runs was started with other settings. Once it is {ANEW}: {', '.join(shown)}{more}."


def hint(error: RbeeError, own: Instance | None) -> str | None:
    """Return what to add to the hint of a model that could not be had; None where the queen has our variables."""
    used = None if own is None else settings_in_use.recorded(own.settings)
    if used is None or not isinstance(error, _OF_FETCHING):
        return None
    names = settings_in_use.changed_variables(used)
    if not names:
        return None
    return f"the queen was started without this {', '.join(names)}, and has it once it is {ANEW}"


def _text(value: object) -> str:
    if value is None:
        return "the default"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
