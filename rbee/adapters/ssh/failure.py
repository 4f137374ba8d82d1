"""Explains why an SSH connection could not be made, and what helps."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.ssh.algorithms import USUAL
from rbee.adapters.ssh.target import SSH_PORT
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from rbee.adapters.ssh.target import SshServer


_KEYWORDS: Final = {
    "kex algorithm": "KexAlgorithms", "host key": "HostKeyAlgorithms", "ciphers": "Ciphers", "macs": "MACs",
}  # fmt: skip
"""paramiko's words for what two sides have to agree on."""


def translated(server: SshServer, exc: Exception) -> SshFailedError:
    """Return the error in words for what the system or paramiko raised."""
    match exc:
        case socket.gaierror() | UnicodeError():  # the latter for what no name can be
            return failed(server, "dns", f"the name {server.host} is not known")
        case TimeoutError():
            return failed(server, "timeout", "timeout")
        case OSError(errno=errno.ECONNREFUSED):
            return failed(server, "refused", f"connection refused at port {server.port}")
        case OSError():
            return failed(server, "refused", (exc.strerror or str(exc)).lower())
        case paramiko.ChannelException():
            return failed(server, "refused", f"{exc.text.lower()}, says the machine before it")
        case paramiko.ssh_exception.IncompatiblePeer():
            what = str(exc).partition("no acceptable ")[2].rstrip(")") or "compression"
            error = failed(server, "refused", f"the server and rbee have no {what} in common")
            keyword = _KEYWORDS.get(what)
            if keyword is not None:
                has = ", ".join(USUAL[keyword])
                error.hint = f"look for {keyword} in its sshd_config and in ~/.ssh/config; rbee has {has}"
            return error
        case paramiko.SSHException() if "banner" in str(exc) or "protocol version" in str(exc):
            return failed(server, "refused", f"what listens at port {server.port} does not speak SSH")
        case _:
            return failed(server, "refused", str(exc) or "the connection was closed")


def failed(server: SshServer, reason: str, words: str) -> SshFailedError:
    """Return the error for a connection that was not made; `reason` is one of those of SshFailedError."""
    port = "" if server.port == SSH_PORT else f"-p {server.port} "
    hints = {
        "dns": "look at the spelling of the host, or give its address",
        "timeout": "see that the machine is on and reachable, and that no firewall is in between",
        "refused": "see that sshd runs there, and at which port",
        "auth": f"`ssh-copy-id {port}{server.user}@{server.name}` puts your key there; --ssh-key names another one",
    }
    return SshFailedError(f"SSH to {server} failed: {words}", hint=hints.get(reason), reason=reason)
