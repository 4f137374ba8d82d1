"""Says where an SSH connection leads, and why one could not be made."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

import paramiko

from rbee.errors import SshFailedError


class Target(NamedTuple):
    """Where to connect, and as whom; without `key_path` the agent's and the usual keys are tried.

    `host_key` is the public key that the server must have, in its one-line form.
    """

    host: str
    port: int
    user: str
    key_path: str | None = None
    host_key: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


def translated(target: Target, exc: Exception) -> SshFailedError:
    match exc:
        case socket.gaierror() | UnicodeError():  # the latter for what no name can be
            return failed(target, "dns", f"the name {target.host} is not known")
        case TimeoutError():
            return failed(target, "timeout", "timeout")
        case OSError(errno=errno.ECONNREFUSED):
            return failed(target, "refused", f"connection refused at port {target.port}")
        case OSError():
            return failed(target, "refused", (exc.strerror or str(exc)).lower())
        case paramiko.SSHException() if "banner" in str(exc) or "protocol version" in str(exc):
            return failed(target, "refused", f"what listens at port {target.port} does not speak SSH")
        case _:
            return failed(target, "refused", str(exc) or "the connection was closed")


def failed(target: Target, reason: str, words: str) -> SshFailedError:
    hints = {
        "dns": "look at the spelling of the host, or give its address",
        "timeout": "see that the machine is on and reachable, and that no firewall is in between",
        "refused": "see that sshd runs there, and at which port",
        "auth": f"`ssh-copy-id {target.user}@{target.host}` puts your key there; --ssh-key names another one",
    }
    return SshFailedError(f"SSH to {target} failed: {words}", hint=hints.get(reason), reason=reason)
