"""Logs in over SSH with the keys that the user has."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.ssh_target import failed
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.adapters.ssh_target import Target

KEY_FILES: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def authenticate(transport: paramiko.Transport, target: Target) -> None:
    """Offer keys until one is taken. Raises SshFailedError (`auth`)."""
    tried = 0
    with closing(paramiko.Agent()) as agent:  # without one it has no keys
        for key in _keys(target, agent):
            tried += 1
            with suppress(paramiko.AuthenticationException):
                transport.auth_publickey(target.user, key)
                if transport.is_authenticated():
                    return
            if not transport.is_active():
                break
    if tried == 0:
        raise failed(target, "auth", "there is no key to offer: neither an agent nor a key file")
    raise failed(target, "auth", f"{target.user} was not let in with {'the key' if tried == 1 else 'any of the keys'}")


def _keys(target: Target, agent: paramiko.Agent) -> Iterator[paramiko.PKey]:
    if target.key_path is not None:
        yield _load(target, target.key_path)
        return
    yield from agent.get_keys()
    for file in KEY_FILES:
        if os.path.exists(path := os.path.expanduser(file)):  # noqa: PTH110, PTH111
            with suppress(SshFailedError):  # one with a passphrase; there may be others
                yield _load(target, path)


def _load(target: Target, path: str) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(Path(path).expanduser())
    except (paramiko.PasswordRequiredException, TypeError) as exc:  # the latter for OpenSSH's own format
        error = failed(target, "auth", f"the key {Path(path).name} needs its passphrase")
        error.hint = f"`ssh-add {path}` gives it to the agent, before the queen is started"
        raise error from exc
    except FileNotFoundError as exc:
        raise failed(target, "auth", f"there is no key file {Path(path).name}") from exc
    except (paramiko.SSHException, OSError, ValueError) as exc:
        raise failed(target, "auth", f"the key file {Path(path).name} cannot be read: {exc}") from exc
