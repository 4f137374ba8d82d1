"""Where an SSH connection leads, and as which user."""

from __future__ import annotations

from typing import Final, NamedTuple

SSH_PORT: Final = 22


class Target(NamedTuple):
    """A machine and a user there; without `key_path` the agent's keys and the usual key files are tried.

    `host_key` is the public key that the server must have, in its one-line form.
    """

    host: str
    port: int
    user: str
    key_path: str | None = None
    host_key: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == SSH_PORT else f":{self.port}")
