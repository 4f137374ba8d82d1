"""Checks host keys: against the pinned key, else against rbee's own and the user's known hosts."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paramiko import HostKeys
from paramiko.hostkeys import HostKeyEntry

from rbee.adapters.files import private
from rbee.errors import HostKeyError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paramiko import PKey

log = logging.getLogger(__name__)

USERS: Final = Path("~/.ssh/known_hosts")
_REVOKED: Final = "@revoked "
"""The marker of a key that is not to be trusted, whatever other lines say (sshd(8))."""
_ALGORITHMS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""A key's type names its signature algorithm, except for RSA (RFC 8332)."""


def fingerprint(key: str) -> str:
    """Return the SHA-256 fingerprint of a public key in its one-line form, as OpenSSH shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1], validate=True)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def line(key: PKey) -> str:
    """Return a public key in its one-line form: type and base64."""
    return f"{key.get_name()} {key.get_base64()}"


class Trust:
    """What is known about one server before it shows its key. Raises HostKeyError where the `pinned` key is none."""

    def __init__(self, host: str, port: int, pinned: str | None, files: Sequence[Path]) -> None:
        self._name = host if port == 22 else f"[{host}]:{port}"  # sshd(8), known_hosts file format
        self._files = files
        self._keys = {pinned} if pinned is not None else _known(self._name, files)
        try:
            self._fingerprints = sorted(map(fingerprint, self._keys))
        except (IndexError, ValueError):
            raise HostKeyError(
                f"the host key of {self._name} that is stored with the node is damaged",
                hint="`rbee setup remove-node` forgets it with the node; then add the node again",
            ) from None

    def algorithms(self, offered: Sequence[str]) -> list[str]:
        """Return the host key algorithms, those of known keys first, so that the server shows a key to compare."""
        known = [name for key in self._keys for name in _ALGORITHMS.get(key.split()[0], (key.split()[0],))]
        return sorted(offered, key=lambda name: name not in known)

    def check(self, shown: str, accepted: str | None) -> bool:
        """Return whether the key is known already; False for one whose fingerprint is `accepted` now.

        Raises HostKeyError for a key that is not known, and for one that has changed.
        """
        if shown in self._keys:
            return True
        found = fingerprint(shown)
        if self._keys:
            own = "".join(f", the same with `-f {private.shown(file)}`" for file in self._files if file != USERS)
            raise HostKeyError(
                f"the host key of {self._name} has changed\n  known {', '.join(self._fingerprints)}\n  shown {found}",
                hint="someone may be listening in. If the machine was set up anew, forget its old key: "
                f"`ssh-keygen -R '{self._name}'`{own}, and "
                "`rbee setup remove-node`; then add the node again",
                fingerprint=found,
                known=self._fingerprints,
            )
        if accepted == found:
            return False
        raise HostKeyError(
            f"the host key of {self._name} is not known: {found} ({shown.split(maxsplit=1)[0]})"
            + (f", and {accepted} was to be accepted" if accepted else ""),
            hint=f"compare it with `ssh-keygen -lf` on that machine; --accept-host-key {found} accepts it",
            fingerprint=found,
        )

    def remember(self, file: Path, key: str) -> None:
        """Append the server's key to our own known hosts."""
        try:
            private.make_private(file.parent)
            with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as known:
                # A line that was cut, as by a full disk or an editor, would take the next one along.
                is_cut = known.seek(0, os.SEEK_END) > 0 and os.pread(known.fileno(), 1, known.tell() - 1) != b"\n"
                known.write(b"\n" * is_cut + f"{self._name} {key}\n".encode())
        except OSError as exc:
            raise StorageError(f"{file.name} cannot be written: {exc.strerror}") from exc


def _known(name: str, files: Sequence[Path]) -> set[str]:
    keys: set[str] = set()
    revoked: set[str] = set()
    for file in files:
        try:
            lines = file.expanduser().read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            continue
        for number, text in enumerate(map(str.strip, lines), 1):
            # One by one: a line that is damaged, or of an authority, proves nothing, and takes no other along.
            plain = text.removeprefix(_REVOKED)
            try:
                if not text.startswith("#") and (entry := HostKeyEntry.from_line(plain)) is not None:
                    hosts = HostKeys()
                    for host in entry.hostnames:
                        hosts.add(host, entry.key.get_name(), entry.key)
                    found = {line(key) for key in (hosts.lookup(name) or {}).values()}
                    if plain == text:
                        keys |= found
                    else:
                        revoked |= found
            except Exception as exc:  # noqa: BLE001 (paramiko has no one error for them)
                log.info("line %d of %s cannot be read, and is passed over: %r", number, file, exc)
    return keys - revoked
