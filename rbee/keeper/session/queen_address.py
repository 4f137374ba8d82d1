"""Reads where the queen is that a command uses: on this machine, or at an address that the user has named."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rbee.errors import InvalidConfigurationError
from rbee.keeper.command_line.queen_url import FORMS, PORT, parse
from rbee.wire.addresses import is_loopback, reachable
from rbee.wire.common import base_url

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.instance import Instance


class QueenAddress(NamedTuple):
    """The base URL of a queen; `is_named` where the user has said which one, else it is this machine's."""

    url: str
    is_named: bool

    @property
    def host(self) -> str:
        """The host and port, for people."""
        return urlsplit(self.url).netloc

    @property
    def machine(self) -> str:
        """The host alone, for people and `ssh`."""
        return urlsplit(self.url).hostname or ""

    @property
    def tunnel(self) -> str:
        """The command that opens a tunnel to the queen, at http://127.0.0.1:8081."""
        machine = "MACHINE" if is_loopback(self.machine) else self.machine
        port = PORT if is_loopback(self.machine) else urlsplit(self.url).port or PORT
        return f"`ssh -N -L 8081:127.0.0.1:{port} {machine}`"

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read what is sent there."""
        return self.url.startswith("https:") or is_loopback(self.machine)


def configured(settings: Settings) -> QueenAddress:
    """Return the queen's address from the settings. Raises InvalidConfigurationError for one that is none."""
    queen = settings.queen
    if not queen.url:
        return QueenAddress(base_url(reachable(queen.host), queen.port), is_named=False)
    try:
        return QueenAddress(parse(queen.url), is_named=True)
    except ValueError as exc:
        raise InvalidConfigurationError(f"queen.url: {exc}", hint=FORMS, key="queen.url") from None


def machine_elsewhere(settings: Settings) -> str | None:
    """Return the machine of a queen that is named and not at a loopback address; None for one of this machine."""
    address = configured(settings)
    return address.machine if address.is_named and not is_loopback(address.machine) else None


def is_at(address: QueenAddress, own: Instance) -> bool:
    """Whether a queen of our state folder may be the one at the address."""
    found, ours = urlsplit(address.url), urlsplit(own.url)
    if not address.is_named:
        return True
    return found.port == ours.port and (found.hostname == ours.hostname or is_loopback(found.hostname or ""))
