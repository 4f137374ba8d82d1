"""Finds out whose program listens at a port, as far as the system shows that."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rbee.adapters.daemon import process, sock_diag
from rbee.wire import addresses

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"
"""TCP_LISTEN (include/net/tcp_states.h), as it stands in these tables; they show the sockets of all users."""
_ADDRESS, _STATE, _USER = 1, 3, 7
_BETWEEN = re.compile("ssh|proxy|socat|nginx|caddy|traefik")
"""Programs that listen for another one, on this machine or elsewhere: whose that is, their own folder does not say."""


class PortOwner(NamedTuple):
    """A program that listens; what the system does not show is None. `state` is what names its state folder."""

    pid: int | None
    name: str | None
    user: str | None
    state: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it runs as this user, as far as is known."""
        return self.user in (None, _name(os.geteuid()))

    def __str__(self) -> str:
        is_between = _BETWEEN.search(self.name or "") is not None
        parts = [
            f"through {self.name}" if is_between else "",
            f"user {self.user}" if self.user is not None else "",
            f"pid {self.pid}" if self.pid is not None else "",
            (not is_between and self.state) or "",
        ]
        return ", ".join(filter(None, parts))


def find(host: str, port: int) -> PortOwner | None:
    """Return whose program listens there on this machine; None where that cannot be seen."""
    pid, user = process.listener(host, port), _user_of(host, port)
    if pid is None:
        return None if user is None else PortOwner(None, None, user, None)
    import psutil

    name = state = None
    with suppress(psutil.Error):
        found = psutil.Process(pid)
        name, user = found.name(), _name(found.uids().effective)
        environment = found.environ()  # of our own processes only, unless we are root
        state = next((f"{key}={environment[key]}" for key in ("RBEE_HOME", "HOME") if environment.get(key)), None)
    return PortOwner(pid, name, user, state)


def users_at(address: str, port: int) -> set[int]:
    """Return the users whose programs listen where a connection to an address of this machine would go.

    A program that listens at the very address comes before one that listens at all of them.
    """
    try:
        found = sock_diag.user_at(address, port)
    except OSError:
        return listed_at(address, port)
    return set() if found is None else {found}


def listed_at(address: str, port: int) -> set[int]:
    """Return the same out of /proc, where the kernel lacks sock_diag; on large machines that takes milliseconds."""
    found = _listed(address, port)
    return {user for is_everywhere, user in found if is_everywhere is min(found)[0]}


def _user_of(host: str, port: int) -> str | None:
    found = [(is_everywhere, _name(user)) for is_everywhere, user in _listed(host, port)]
    return min(found)[1] if found else None


def _listed(host: str, port: int) -> list[tuple[bool, int]]:
    """Return who listens there: whether at every address, and the user."""
    found: list[tuple[bool, int]] = []
    for table in _TABLES:
        with suppress(OSError, ValueError, IndexError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[_ADDRESS].partition(":")
                if fields[_STATE] != _LISTENING or int(number, 16) != port:
                    continue
                if addresses.is_met(host, shown := _address(address)):
                    found.append((addresses.is_unspecified(shown), int(fields[_USER])))
    return found


def _address(digits: str) -> str:
    """Return an address of these tables: words of four bytes, each the wrong way round on this processor."""
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
