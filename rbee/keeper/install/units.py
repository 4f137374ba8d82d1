"""Composes the systemd units of the daemons (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK: Final = "# Written by `rbee install --systemd`"
"""The first line of each of our units begins so."""
WATCHDOG_SECONDS: Final = 60

_TEMPLATE: Final = """\
{mark}, which overwrites it when it is run again.
# Put changes of your own into what `systemctl --user edit rbee-{role}` opens.

[Unit]
Description={description}
{order}# Give up on a daemon that fails repeatedly (its port is taken, its settings are wrong).
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
# The colon: no variables are expanded in this line.
ExecStart=:{command}
{environment}Restart=on-failure
RestartSec=2
WatchdogSec={watchdog}
# Running requests may finish, then the processes below end in order; a daemon with longer [timeouts] asks for more.
TimeoutStopSec={stop:.0f}
{kill}KillMode=process
# If a process below runs out of memory, the daemon reports it; the others go on.
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
"""Role → description of its unit. The hive comes first, so that it runs when the queen looks for one."""
_KILL: Final = {
    "hive": "# A hive ends its workers itself. They outlive a hive that crashes, and the next one adopts them.\n",
    "queen": "# A queen ends the hive that it started. It outlives a queen that crashes, and the next queen ends it.\n",
}


def name(role: str) -> str:
    """Return the name of the unit and of its file."""
    return f"rbee-{role}.service"


def text(role: str, command: Sequence[str], environment: Mapping[str, str], *, stop_seconds: float) -> str:
    """Return the unit's text; `command` starts the daemon, which takes at most `stop_seconds` to end.

    Raises ValueError with the reason for values that systemd refuses.
    """
    if _BARRED.search(command[0]):
        raise ValueError(f"it starts no program whose path contains quotes or a backslash: {command[0]}")
    if odd := [word for word in (*command, *environment.values()) if not _is_unicode(word)]:
        raise ValueError(f"it takes UTF-8 only, and a path is not: {odd[0]!a}")
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
    """Quote a word for a unit (systemd.syntax(7); specifiers: systemd.unit(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'
