"""Where an SSH connection leads: as the user says it, and as it is once ssh's own settings have been read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.ssh.algorithms import Algorithms

if TYPE_CHECKING:
    from pathlib import Path

SSH_PORT: Final = 22


class Target(NamedTuple):
    """A machine as the user names it; what is None is looked up in ssh's settings (ssh_config(5)).

    Without `key_path` the keys are tried that `ssh` would try. `host_key` is the public key that the server must have,
    in its one-line form.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key_path: str | None = None
    host_key: str | None = None

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        return f"{user}{self.host}" + ("" if self.port in (None, SSH_PORT) else f":{self.port}")


@dataclass(frozen=True)
class SshServer:
    """A machine with all that ssh's settings say of the way to it; the names of the fields are theirs.

    `name` is what the user calls it, `host` the address. Files and sockets are absolute paths.
    """

    name: str
    host: str
    port: int
    user: str
    has_port: bool = False
    """Whether the settings decide the port, as `has_user` says of the user."""
    has_user: bool = False
    key_path: str | None = None
    """The key that the user has named for this one connection; no other is tried."""
    host_key: str | None = None
    identity_files: tuple[str, ...] | None = None
    """None where the settings name none: then it is the usual ones."""
    certificate_files: tuple[str, ...] = ()
    is_identities_only: bool = False
    identity_agent: str | None = None
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str | None = None
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    revoked_host_keys: Path | None = None
    is_hashed: bool = False
    strict: str = "ask"
    """StrictHostKeyChecking: `ask`, `yes`, `accept-new` or `no`."""
    family: str = "any"
    bind_address: str | None = None
    algorithms: Algorithms = field(default_factory=Algorithms)
    offers_keys: bool = True
    """PubkeyAuthentication and PreferredAuthentications; without them the server has to let us in by the network."""
    smallest_rsa: int = 1024
    is_trusted_here: bool = False
    """NoHostAuthenticationForLocalhost."""
    connect_seconds: float | None = None
    attempts: int = 1
    notes: tuple[str, ...] = ()
    """What of the settings was passed over, one clause each."""
    notes_of_keys: tuple[str, ...] = ()
    """The same of what may let the user in there, where rbee is not."""

    @property
    def is_proxied(self) -> bool:
        """Whether another machine or program leads there."""
        return bool(self.proxy_jump) or self.proxy_command is not None

    def __str__(self) -> str:
        address = "" if self.host == self.name.lower() else f" ({self.host})"
        return f"{self.user}@{self.name}{address}" + ("" if self.port == SSH_PORT else f":{self.port}")
