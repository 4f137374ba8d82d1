"""The keys that an agent holds, by its socket."""

from __future__ import annotations

import logging
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, Self

import paramiko
from paramiko.agent import AgentKey, AgentSSH

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 10.0
"""For the agent to answer; one that asks its user before it signs may take this long."""
_FAILURES: Final = (OSError, ValueError, IndexError, TypeError, struct.error, paramiko.SSHException)
"""What paramiko raises for an agent that ends, or says nonsense."""


class HeldKey(AgentKey):
    """A key in an agent."""

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        """Have the agent sign; where it does not, return what the server will refuse, so that the next key has a turn.

        paramiko calls this in the connection's own thread, which an exception would end.
        """
        try:
            return super().sign_ssh_data(data, algorithm)
        except _FAILURES as exc:
            log.warning("the agent does not sign with %s: %s", self.comment or self.name, exc)
            refused = paramiko.Message()
            refused.add_string(algorithm or self.name)
            refused.add_string(bytes(64))
            return refused.asbytes()


class Agent(AgentSSH):
    """The agent at a socket; without one, or where it does not answer, it has no keys."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self.held: list[HeldKey] = []
        if path is None:
            return
        conn = socket.socket(socket.AF_UNIX)
        conn.settimeout(ANSWER_SECONDS)
        try:
            conn.connect(path)
            self._connect(conn)  # type: ignore[attr-defined]
        except _FAILURES as exc:
            log.warning("the agent at %s gives no keys: %s", path, exc)
            conn.close()
        self.held = [HeldKey(self, key.blob, key.comment) for key in self.get_keys()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, stack: TracebackType | None
    ) -> None:
        self._close()  # type: ignore[attr-defined]
