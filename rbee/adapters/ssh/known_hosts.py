"""Finds what files of known hosts say of a server: its keys, the authorities for it, and keys that are revoked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import home, private, regular
from rbee.adapters.ssh.settings import config_lines
from rbee.adapters.ssh.target import SSH_PORT
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

_sha1 = partial(hashlib.sha1, usedforsecurity=False)
_MARKERS: Final = ("@cert-authority", "@revoked")
_HASHED: Final = "|1|"
_INNER, _OUTER = (bytes(byte ^ mask for byte in range(256)) for mask in (0x36, 0x5C))
_INNER_REST, _OUTER_REST = (bytes([mask]) * 44 for mask in (0x36, 0x5C))
_SALT_BYTES: Final = 20


@dataclass
class Known:
    """What is known of one server; a key is a line of its type and base64, and each has where it was found."""

    keys: dict[str, str] = field(default_factory=dict)
    authorities: dict[str, str] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)


def fingerprint(key: str) -> str:
    """Return the SHA-256 fingerprint of a public key in its one-line form, as OpenSSH shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1], validate=True)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def name_of(host: str, port: int) -> str:
    """Return how a server is called in these files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


def find(name: str, files: Iterable[Path]) -> Known:
    """Return what the files say of the server of this name; a line that cannot be read says nothing."""
    known, encoded = Known(), name.encode()
    for file in files:
        try:
            text = regular.read(home.found(file)).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            log.info("%s is passed over: %s", file, exc.strerror)
            continue
        shown = private.shown(home.found(file))
        for number, line in enumerate(text.split("\n"), 1):
            # Most of the time of a large file: what cannot be of this server is not taken apart.
            if _HASHED in line or name in (low := line.lower()) or "*" in low or "?" in low:
                _take(line, name, encoded, known, shown, number)
    return known


def _take(line: str, name: str, encoded: bytes, known: Known, file: str, number: int) -> None:
    fields = line.split(None, 4)
    if not fields or fields[0].startswith("#"):
        return
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3 or (marker and marker not in _MARKERS) or not _is_of(fields[0], name, encoded):
        return
    if (key := _key(fields[1], fields[2])) is None:
        log.info("line %d of %s cannot be read, and is passed over", number, file)
        return
    found = {"": known.keys, "@cert-authority": known.authorities, "@revoked": known.revoked}[marker]
    found.setdefault(key, f"{file} line {number}")


def _is_of(hosts: str, name: str, encoded: bytes) -> bool:
    if hosts.startswith(_HASHED):
        salt, _, digest = hosts.removeprefix(_HASHED).partition("|")
        try:
            return _hmac(binascii.a2b_base64(salt), encoded) == binascii.a2b_base64(digest)
        except ValueError:
            return False
    return config_lines.matches_list(name, hosts.lower().split(","))


def _hmac(salt: bytes, name: bytes) -> bytes:
    """Return the HMAC-SHA1 (RFC 2104); for salts as OpenSSH makes them in half of the time that `hmac` takes."""
    if len(salt) != _SALT_BYTES:
        return hmac.digest(salt, name, "sha1")
    inner = _sha1(salt.translate(_INNER) + _INNER_REST + name).digest()
    return _sha1(salt.translate(_OUTER) + _OUTER_REST + inner).digest()


def _key(kind: str, text: str) -> str | None:
    """Return the key in its one-line form; None where it is none, or of another type than it says."""
    try:
        blob = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    size = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + size] != kind.encode("utf-8", "replace") or len(blob) <= 4 + size:
        return None
    return f"{kind} {base64.b64encode(blob).decode()}"


def remember(file: Path, name: str, key: str, *, is_hashed: bool = False) -> None:
    """Append a server's key to our own known hosts. Raises StorageError."""
    try:
        private.make_private(file.parent)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as known:
            # A line that was cut, as by a full disk or an editor, would take the next one along.
            is_cut = known.seek(0, os.SEEK_END) > 0 and os.pread(known.fileno(), 1, known.tell() - 1) != b"\n"
            known.write(b"\n" * is_cut + f"{_hashed(name) if is_hashed else name} {key}\n".encode())
    except OSError as exc:
        raise StorageError(f"{file.name} cannot be written: {exc.strerror}") from exc


def _hashed(name: str) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"{_HASHED}{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
