"""Writes the systemd units of the daemons (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK: Final = "# Written by `rbee install --systemd`"
"""How each of our units begins."""
WATCHDOG_SECONDS: Final = 60

_TEMPLATE: Final = """\
{mark}, and anew whenever that is run again.
# Changes of your own are safe in what `systemctl --user edit rbee-{role}` opens.

[Unit]
Description={description}
{order}# A daemon that fails again and again (its port is taken, its settings are wrong) is left alone in the end.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
# The colon: nothing in the line is a variable.
ExecStart=:{command}
{environment}Restart=on-failure
RestartSec=2
WatchdogSec={watchdog}
# Running requests may finish, then everything below ends in order; a daemon with longer [timeouts] asks for more.
TimeoutStopSec={stop:.0f}
{kill}KillMode=process
# A process below that runs out of memory is the daemon's to tell of, and no reason to end all others.
OOMPolicy=continue

[Install]
WantedBy=default.target
"""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_BARRED: Final = re.compile(r"""[\x00-\x1f\x7f"'\\]""")

ROLES: Final = {
    "hive": "The hive of rbee: models and workers of this machine",
    "queen": "The queen of rbee: decides where requests run",
}
"""Role → what its unit is called in lists. A hive that is to run is there before the queen looks for one."""
_KILL: Final = {
    "hive": "# A hive ends its workers itself. They outlive one that dies, and the next one adopts them.\n",
    "queen": "# A queen ends the hive that it started. It outlives a queen that dies, and the next one ends it.\n",
}


def name(role: str) -> str:
    """Return the unit's name, which is also the name of its file."""
    return f"rbee-{role}.service"


def text(role: str, command: Sequence[str], environment: Mapping[str, str], *, stop_seconds: float) -> str:
    """Return the unit's text; `command` starts the daemon, and `stop_seconds` is the longest it takes to end.

    Raises ValueError, which says why, for what systemd refuses.
    """
    if _BARRED.search(command[0]):
        raise ValueError(f"it starts no program whose path has quotes or a backslash in it: {command[0]}")
    if odd := [word for word in (*command, *environment.values()) if not _is_unicode(word)]:
        raise ValueError(f"it takes UTF-8 only, and a path is something else: {odd[0]!a}")
    return _TEMPLATE.format(
        mark=MARK,
        role=role,
        description=ROLES[role],
        order="After=rbee-hive.service\n" if role == "queen" else "",
        command=" ".join(map(quote, command)),
        environment="".join(f"Environment={quote(f'{key}={value}')}\n" for key, value in environment.items()),
        watchdog=WATCHDOG_SECONDS,
        stop=stop_seconds,
        kill=_KILL[role],
    )


def _is_unicode(word: str) -> bool:
    return not any("\udc80" <= char <= "\udcff" for char in word)


def quote(word: str) -> str:
    """Return a word as systemd reads it back (systemd.syntax(7), and specifiers as in systemd.unit(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'
