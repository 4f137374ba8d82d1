"""Checks the certificate of a host: whose it is, for which names, and when (PROTOCOL.certkeys of OpenSSH)."""

from __future__ import annotations

import base64
import time

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType


class HostCertificate:
    """The certificate that a server showed; raises ValueError for what is none."""

    def __init__(self, kind: str, blob: bytes) -> None:
        self._blob = blob
        self.line = f"{kind} {base64.b64encode(blob).decode()}"
        """The certificate in its one-line form."""
        try:
            found = serialization.load_ssh_public_identity(self.line.encode())
        except (UnsupportedAlgorithm, ValueError, TypeError) as exc:
            raise ValueError(str(exc)) from exc
        if not isinstance(found, SSHCertificate):
            raise ValueError("it is a key and no certificate")  # noqa: TRY004 (of the server's data)
        self._certificate = found
        line = found.signature_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.authority = line.decode()
        """The key that signed it, in its one-line form."""

    def problem(self, host: str, now: float | None = None) -> str | None:
        """Return why the certificate proves nothing about `host`; None where it does."""
        found, now = self._certificate, time.time() if now is None else now
        if found.type is not SSHCertificateType.HOST:
            return "it is the certificate of a user"
        if found.critical_options:
            return "it has a critical option that is not known"
        if now < found.valid_after:
            return "it is not valid yet"
        if now >= found.valid_before:
            return "it has expired"
        names = [name.decode("utf-8", "replace") for name in found.valid_principals]
        if names and host not in names:
            return f"it is for {', '.join(names[:5])}"
        try:
            found.verify_cert_signature()
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return "its signature is wrong"
        if self._is_sha1():
            return "it is signed with SHA-1"
        return None

    def _is_sha1(self) -> bool:
        """Whether an RSA key signed it with SHA-1; the signature is the last field: a name, and the number."""
        key = self._certificate.signature_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        tail = b"\0\0\0\7ssh-rsa" + (size := key.key_size // 8).to_bytes(4, "big")
        return self._blob[-size - len(tail) : -size] == tail
