"""Logs in over SSH with the keys that the user has, in the order in which `ssh` tries them."""

from __future__ import annotations

import logging
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from rbee.adapters.files import home, private
from rbee.adapters.ssh.agent import Agent, HeldKey
from rbee.adapters.ssh.algorithms import CERTIFICATE, RSA
from rbee.adapters.ssh.failure import failed
from rbee.adapters.ssh.key_file import KeyFile, LockedError, UnprotectedError, certificate, certified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paramiko.pkey import PublicBlob

    from rbee.adapters.ssh.target import SshServer
    from rbee.errors import SshFailedError

log = logging.getLogger(__name__)

KEY_FILES: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def authenticate(transport: paramiko.Transport, server: SshServer) -> None:
    """Offer keys until one is taken. Raises SshFailedError (`auth`)."""
    if _is_let_in_without(transport, server):
        return
    if not server.offers_keys:
        error = failed(server, "auth", "ssh's settings allow no keys for it, and rbee has nothing else to log in with")
        error.hint = "look for PubkeyAuthentication and PreferredAuthentications in ~/.ssh/config"
        raise error
    tried = 0
    locked: list[Path] = []
    unreadable: list[tuple[KeyFile, Exception]] = []
    with Agent(server.identity_agent) as agent:
        for key in _keys(server, agent, locked, unreadable):
            if not _is_allowed(transport, server, key):
                continue
            tried += 1
            with suppress(paramiko.SSHException):  # a refusal, or the server's last word
                transport.auth_publickey(server.user, key)
                if transport.is_authenticated():
                    return
            if not transport.is_active():
                error = failed(server, "auth", f"the server hung up after {tried} key{'s' * (tried > 1)}")
                error.hint = (
                    "name the key that it knows: --ssh-key FILE, for `rbee setup add-node` and `update-node`, or "
                    "IdentityFile and IdentitiesOnly in ~/.ssh/config"
                )
                raise error
    if locked:
        raise _locked(server, agent, locked[0], tried)
    unprotected = [file for file, exc in unreadable if isinstance(exc, UnprotectedError)]
    if unprotected:
        raise _unprotected(server, unprotected[0], tried)
    if tried == 0 and unreadable:
        raise _unreadable(server, agent, *unreadable[0])
    if tried == 0:
        raise failed(server, "auth", "there is no key to offer: neither an agent nor a key file")
    raise failed(server, "auth", f"{server.user} was not let in with {'the key' if tried == 1 else 'any of the keys'}")


def _is_let_in_without(transport: paramiko.Transport, server: SshServer) -> bool:
    """Ask for what the server wants, as `ssh` does: some let in by the network alone. Raises where it takes no keys."""
    try:
        transport.auth_none(server.user)
    except paramiko.BadAuthenticationType as exc:
        if "publickey" not in exc.allowed_types:
            takes = " or ".join(filter(None, exc.allowed_types)) or "nothing that rbee has"
            error = failed(server, "auth", f"the server takes no keys of {server.user}, only {takes}")
            error.hint = "allow keys there: PubkeyAuthentication in its sshd_config"
            raise error from exc
    except paramiko.SSHException as exc:
        if not transport.is_active():
            raise failed(server, "auth", "the server hung up before a key was offered") from exc
    return transport.is_authenticated()


def _is_allowed(transport: paramiko.Transport, server: SshServer, key: paramiko.PKey) -> bool:
    """Whether the settings let this key be offered, by its algorithm and size."""
    kind = key.get_name() if key.public_blob is None else key.public_blob.key_type
    if "rsa" in kind and key.get_bits() < server.smallest_rsa:
        return False
    allowed = transport.preferred_pubkeys
    suffix = CERTIFICATE if kind.endswith(CERTIFICATE) else ""
    names = RSA if "rsa" in kind else (kind.removesuffix(suffix),)
    return any(f"{name}{suffix}" in allowed for name in names) or "sk-" in kind


def _keys(
    server: SshServer, agent: Agent, locked: list[Path], unreadable: list[tuple[KeyFile, Exception]]
) -> Iterator[paramiko.PKey]:
    """Yield what can be offered.

    `locked` gets the files that need a passphrase, and that the agent does not hold; `unreadable` what is no key.
    """
    files = [KeyFile(path) for path in _paths(server)]
    certificates = list(_certificates(server, files))
    by_blob = {key.blob: key for key in agent.held}
    in_files = [file for file in files if file.public in by_blob]
    # Keys in the agent that are named, then its others, then the files: sshconnect2.c, pubkey_prepare.
    for file in in_files:
        yield by_blob[file.public or b""]
        yield from _with_certificates(by_blob[file.public or b""], agent, certificates)
    if server.key_path is None and not server.is_identities_only:
        named = {file.public for file in in_files}
        yield from (key for key in agent.held if key.blob not in named)
    for file in files:
        if file in in_files:
            continue
        try:
            key = file.private()
        except LockedError:
            locked.append(file.private_path)
        except (OSError, ValueError) as exc:
            if server.key_path is not None and not isinstance(exc, UnprotectedError):
                raise _unreadable(server, agent, file, exc) from exc
            log.debug("the key file %s is passed over: %s", file.path, exc)
            if not isinstance(exc, FileNotFoundError) or file.is_public:
                unreadable.append((file, exc))
        else:
            yield key
            yield from _with_certificates(key, agent, certificates)


def _paths(server: SshServer) -> list[str]:
    if server.key_path is not None:
        return [str(home.found(server.key_path))]
    named = KEY_FILES if server.identity_files is None else server.identity_files
    return [str(home.found(path)) for path in named]


def _certificates(server: SshServer, files: list[KeyFile]) -> Iterator[tuple[bytes, PublicBlob]]:
    """Yield the certificates that are named, else those beside the keys, each with the key that it is for."""
    if server.certificate_files and server.key_path is None:
        found = [certificate(path) for path in server.certificate_files]
    else:
        found = [file.certificate for file in files]
    for blob in found:
        if blob is not None and (key := certified(blob.key_blob)) is not None:
            yield key, blob


def _with_certificates(
    key: paramiko.PKey, agent: Agent, certificates: list[tuple[bytes, PublicBlob]]
) -> Iterator[paramiko.PKey]:
    """Yield the key with each certificate for it."""
    public = key.asbytes()
    for certified_key, blob in certificates:
        if certified_key == public:
            if isinstance(key, HeldKey):
                again: paramiko.PKey = HeldKey(agent, key.blob, key.comment)
            else:
                again = key
            again.public_blob = blob
            yield again


def _unreadable(server: SshServer, agent: Agent, file: KeyFile, exc: Exception) -> SshFailedError:
    name = file.path.name  # an answer names no folder
    if file.is_public:
        error = failed(server, "auth", f"{name} is a public key, and the agent does not hold its private half")
        error.hint = _to_the_agent(server, agent, file.private_path)
        return error
    if isinstance(exc, FileNotFoundError):
        error = failed(server, "auth", f"there is no key file {name}")
        error.hint = "--ssh-key names the private key, on the machine of the queen"
        return error
    words = exc.strerror if isinstance(exc, OSError) else str(exc).partition(".")[0]
    error = failed(server, "auth", f"the key file {name} cannot be read: {words}")
    error.hint = f"`ssh-keygen -y -f {shlex.quote(str(file.path))}` tries whether it is a private key"
    return error


def _unprotected(server: SshServer, file: KeyFile, tried: int) -> SshFailedError:
    others = f", and {server.user} was not let in with the other keys" if tried else ""
    path = file.private_path
    error = failed(server, "auth", f"the key {path.name} is not used, as others may read its file{others}")
    error.hint = f"`chmod go-rwx {shlex.quote(str(path))}`; `ssh` does not use it either"
    return error


def _locked(server: SshServer, agent: Agent, path: Path, tried: int) -> SshFailedError:
    others = f", and {server.user} was not let in with the other keys" if tried else ""
    error = failed(server, "auth", f"the key {path.name} needs its passphrase{others}")
    error.hint = _to_the_agent(server, agent, path)
    return error


def _to_the_agent(server: SshServer, agent: Agent, path: Path) -> str:
    name = private.shown(path)
    if server.identity_agent is not None and not agent.has_answered:
        return (
            f"the agent at {private.shown(Path(server.identity_agent))} does not answer this queen: `rbee down`, then "
            f"`ssh-add {name}` and the command again, where `ssh-add -l` works"
        )
    if server.identity_agent is None:
        return (
            f"this queen was started without an agent: `rbee down`, then `ssh-add {name}` and the command again, where "
            "SSH_AUTH_SOCK is set"
        )
    return f"`ssh-add {name}` gives it to the agent"
