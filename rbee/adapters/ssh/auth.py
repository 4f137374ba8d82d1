"""Logs in over SSH with the keys that the user has."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.files import private
from rbee.adapters.ssh.failure import failed
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.adapters.ssh.target import Target

KEY_FILES: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def authenticate(transport: paramiko.Transport, target: Target) -> None:
    """Offer keys until one is taken. Raises SshFailedError (`auth`)."""
    tried = 0
    locked: list[str] = []
    with closing(paramiko.Agent()) as agent:  # without one it has no keys
        for key in _keys(target, agent, locked):
            tried += 1
            with suppress(paramiko.SSHException):  # a refusal, or the server's last word
                transport.auth_publickey(target.user, key)
                if transport.is_authenticated():
                    return
            if not transport.is_active():
                error = failed(target, "auth", f"the server hung up after {tried} key{'s' * (tried > 1)}")
                error.hint = "name the key that it knows: --ssh-key FILE, for `rbee setup add-node` and `update-node`"
                raise error
    if tried == 0 and locked:
        raise _locked(target, locked[0])
    if tried == 0:
        raise failed(target, "auth", "there is no key to offer: neither an agent nor a key file")
    raise failed(target, "auth", f"{target.user} was not let in with {'the key' if tried == 1 else 'any of the keys'}")


def _keys(target: Target, agent: paramiko.Agent, locked: list[str]) -> Iterator[paramiko.PKey]:
    """Yield what can be offered; `locked` gets the usual files that need a passphrase."""
    if target.key_path is not None:
        if (key := _load(target, target.key_path)) is None:
            raise _locked(target, target.key_path)
        yield key
        return
    yield from agent.get_keys()
    for file in KEY_FILES:
        if os.path.exists(path := os.path.expanduser(file)):  # noqa: PTH110, PTH111
            with suppress(SshFailedError):  # there may be others
                if (key := _load(target, path)) is None:
                    locked.append(file)
                else:
                    yield key


def _load(target: Target, path: str) -> paramiko.PKey | None:
    """Return the key in a file; None where it needs a passphrase."""
    try:
        return paramiko.PKey.from_path(Path(path).expanduser())
    except (paramiko.PasswordRequiredException, TypeError):  # the latter for OpenSSH's own format
        return None
    except FileNotFoundError as exc:
        raise failed(target, "auth", f"there is no key file {Path(path).name}") from exc
    except OSError as exc:
        raise failed(target, "auth", f"the key file {Path(path).name} cannot be read: {exc.strerror}") from exc
    except (paramiko.SSHException, ValueError) as exc:
        raise failed(target, "auth", f"the key file {Path(path).name} cannot be read: {exc}") from exc


def _locked(target: Target, path: str) -> SshFailedError:
    error = failed(target, "auth", f"the key {Path(path).name} needs its passphrase")
    error.hint = f"`ssh-add {private.shown(Path(path))}` gives it to the agent, before the queen is started"
    return error
