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
_REQUEST, _ANSWER = b"\x0b", 12
"""SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENT_IDENTITIES_ANSWER (draft-ietf-sshm-ssh-agent)."""
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
        self.has_answered = False
        if path is None:
            return
        self._conn = socket.socket(socket.AF_UNIX)
        self._conn.settimeout(ANSWER_SECONDS)
        try:
            self._conn.connect(path)
            self._ask()
        except _FAILURES as exc:
            log.warning("the agent at %s gives no keys: %s", path, exc)

    def _ask(self) -> None:
        """Ask for the keys; one that cannot be read takes no other along."""
        kind, answer = self._send_message(_REQUEST)  # type: ignore[attr-defined]
        if kind != _ANSWER:
            raise paramiko.SSHException("it does not list its keys")
        self.has_answered = True
        for _ in range(answer.get_int()):
            if not (blob := answer.get_binary()):
                break
            comment = answer.get_binary().decode("utf-8", "replace")
            try:
                self.held.append(HeldKey(self, blob, comment))
            except _FAILURES as exc:
                log.info("the agent's key %s cannot be read: %s", comment, exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, stack: TracebackType | None
    ) -> None:
        self._close()  # type: ignore[attr-defined]
