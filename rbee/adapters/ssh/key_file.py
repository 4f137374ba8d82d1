"""Reads a user's key files: the key, its public half where the key is locked, and certificates for it."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.pkey import PublicBlob

from rbee.adapters.files import regular

_MAX_BYTES: Final = 64 * 1024
"""Far more than a key of any kind."""
_PUBLIC: Final = re.compile(rb"\s*((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+)[ \t]+([A-Za-z0-9+/=]+)")
_OPENSSH: Final = re.compile(
    rb"-----BEGIN OPENSSH PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END OPENSSH PRIVATE KEY-----"
)
_MAGIC: Final = b"openssh-key-v1\0"
_CLASSES: Final = (
    (rsa.RSAPrivateKey, paramiko.RSAKey),
    (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
    (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
)


class LockedError(Exception):
    """The key needs its passphrase."""


class UnprotectedError(OSError):
    """Others may read the key, so that `ssh` does not use it (authfile.c, sshkey_perm_ok)."""


class KeyFile:
    """A file that the user names as a key: the private one, or the public one beside it, which may be all there is."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._public: tuple[bytes | None] | None = None

    @property
    def public(self) -> bytes | None:
        """The public key as it goes over the wire; None where it cannot be told, as of some locked files."""
        # No cached_property: before Python 3.12 one that hangs, on a file of a dead server, holds up all others.
        if self._public is None:
            self._public = (self._find_public(),)
        return self._public[0]

    def _find_public(self) -> bytes | None:
        for path in (self.path, self.path.with_name(f"{self.path.name}.pub")):
            with suppress(OSError, ValueError):
                content = regular.read(path, _MAX_BYTES)
                if (found := _PUBLIC.match(content)) is not None:
                    return base64.b64decode(found[2], validate=True)
                if path == self.path and (half := _public_half(content)) is not None:
                    return half
        with suppress(OSError, ValueError, LockedError):
            return self.private().asbytes()
        return None

    @property
    def is_public(self) -> bool:
        """Whether the file is the public half."""
        with suppress(OSError):
            return _PUBLIC.match(regular.read(self.path, _MAX_BYTES)) is not None
        return False

    @property
    def private_path(self) -> Path:
        """The file of the private half."""
        return self.path.with_suffix("") if self.is_public and self.path.suffix == ".pub" else self.path

    def private(self) -> paramiko.PKey:
        """Return the key. Raises LockedError, OSError, UnprotectedError, or ValueError for what is no key.

        Of the public half the private one is looked for beside it.
        """
        with regular.opened(self.private_path) as file:
            found = os.fstat(file.fileno())
            if found.st_uid == os.getuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UnprotectedError(errno.EACCES, "others may read it")
            content = file.read(_MAX_BYTES)
        key: object
        try:
            try:
                key = serialization.load_ssh_private_key(content, None)
            except ValueError:
                key = serialization.load_pem_private_key(content, None)
        except TypeError as exc:  # cryptography's word for a passphrase that is missing
            raise LockedError from exc
        except UnsupportedAlgorithm as exc:
            raise ValueError(str(exc)) from exc
        for kind, made in _CLASSES:
            if isinstance(key, kind):
                # Written anew, because paramiko reads fewer formats than cryptography.
                text = key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
                )
                try:
                    return made.from_private_key(io.StringIO(text.decode()))
                except paramiko.SSHException as exc:
                    raise ValueError(str(exc)) from exc
        raise ValueError("it is of a type that is not used any more")

    @property
    def certificate(self) -> PublicBlob | None:
        """The certificate that lies beside the key, if any."""
        name = self.path.name.removesuffix(".pub")
        return certificate(str(self.path.with_name(f"{name}-cert.pub")))


def certificate(path: str) -> PublicBlob | None:
    """Return the certificate in a file; None where there is none."""
    with suppress(OSError, ValueError):
        found = _PUBLIC.match(regular.read(Path(path), _MAX_BYTES))
        if found is not None and b"-cert-" in found[1]:
            return PublicBlob(found[1].decode(), base64.b64decode(found[2], validate=True))
    return None


def certified(blob: bytes) -> bytes | None:
    """Return the public key within a certificate, as it goes over the wire; None for what is none."""
    text = base64.b64encode(blob).decode()
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii", "replace")
    with suppress(ValueError, UnsupportedAlgorithm, TypeError):
        found = serialization.load_ssh_public_identity(f"{kind} {text}".encode())
        if isinstance(found, serialization.SSHCertificate):
            key = found.public_key()
            line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            return base64.b64decode(line.split()[1])
    return None


def _public_half(content: bytes) -> bytes | None:
    """Return what OpenSSH's own format says in the open (PROTOCOL.key): cipher, kdf, its options, 1, the public key."""
    if (found := _OPENSSH.search(content)) is None:
        return None
    data = base64.b64decode(found[1])
    if not data.startswith(_MAGIC):
        return None
    rest = data[len(_MAGIC) :]
    fields: list[bytes] = []
    for index in range(4):
        if index == 3:
            rest = rest[4:]  # how many keys there are
        size = int.from_bytes(rest[:4], "big")
        fields.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return fields[-1] or None
