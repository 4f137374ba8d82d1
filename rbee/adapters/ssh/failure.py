"""Explains why an SSH connection could not be made, and what helps."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.ssh.target import SSH_PORT
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from rbee.adapters.ssh.target import Target

CONFIG: Final = Path("~/.ssh/config")


def translated(target: Target, exc: Exception) -> SshFailedError:
    """Return the error in words for what the system or paramiko raised."""
    match exc:
        case socket.gaierror() | UnicodeError():  # the latter for what no name can be
            return _unknown_name(target)
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


def _unknown_name(target: Target) -> SshFailedError:
    error = failed(target, "dns", f"the name {target.host} is not known")
    with suppress(OSError, UnicodeError, paramiko.SSHException):
        settings = paramiko.SSHConfig.from_path(str(CONFIG.expanduser()))
        if target.host in settings.get_hostnames():
            found = settings.lookup(target.host)
            options = [("host", "hostname"), ("port", "port"), ("user", "user")]
            given = [f"--ssh-{option} {found[key]}" for option, key in options if key in found]
            given += [f"--ssh-key {file}" for file in found.get("identityfile", [])[:1]]
            error.hint = f"{CONFIG}, which names it, is not read: give `{' '.join(given)}`"
    return error


def failed(target: Target, reason: str, words: str) -> SshFailedError:
    """Return the error for a connection that was not made; `reason` is one of those of SshFailedError."""
    port = "" if target.port == SSH_PORT else f"-p {target.port} "
    hints = {
        "dns": "look at the spelling of the host, or give its address",
        "timeout": "see that the machine is on and reachable, and that no firewall is in between",
        "refused": "see that sshd runs there, and at which port",
        "auth": f"`ssh-copy-id {port}{target.user}@{target.host}` puts your key there; --ssh-key names another one",
    }
    return SshFailedError(f"SSH to {target} failed: {words}", hint=hints.get(reason), reason=reason)
