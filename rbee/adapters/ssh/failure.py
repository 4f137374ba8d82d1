"""Says why an SSH connection could not be made."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.ssh.target import failed

if TYPE_CHECKING:
    from rbee.adapters.ssh.target import Target
    from rbee.errors import SshFailedError

USERS: Final = Path("~/.ssh/config")


def translated(target: Target, exc: Exception) -> SshFailedError:
    """Return what the system or paramiko raised as an error in words."""
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
        settings = paramiko.SSHConfig.from_path(str(USERS.expanduser()))
        if target.host in settings.get_hostnames():
            found = settings.lookup(target.host)
            options = [("host", "hostname"), ("port", "port"), ("user", "user")]
            given = [f"--ssh-{option} {found[key]}" for option, key in options if key in found]
            given += [f"--ssh-key {file}" for file in found.get("identityfile", [])[:1]]
            error.hint = f"{USERS}, which names it, is not read: give `{' '.join(given)}`"
    return error
