"""Decides whether the key that a server shows is the server's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.files import private
from rbee.adapters.ssh import algorithms, known_hosts, revocation
from rbee.adapters.ssh.algorithms import CERTIFICATE, RSA
from rbee.adapters.ssh.certificate import HostCertificate
from rbee.adapters.ssh.known_hosts import fingerprint, name_of
from rbee.adapters.ssh.settings import ssh_config
from rbee.narrower_errors import HostKeyError
from rbee.wire import addresses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import paramiko

    from rbee.adapters.ssh.target import SshServer

log = logging.getLogger(__name__)


class ShownKey(NamedTuple):
    """What a server showed: its public key in the one-line form, and the certificate for it, if any."""

    key: str
    certificate: HostCertificate | None = None
    rsa_bits: int | None = None


def shown_key(key: paramiko.PKey) -> ShownKey:
    """Return the key that a server showed; a certificate that cannot be read counts as none."""
    plain = ShownKey(
        f"{key.get_name()} {key.get_base64()}", rsa_bits=key.get_bits() if key.get_name() == "ssh-rsa" else None
    )
    blob = key.public_blob
    if blob is None:
        return plain
    try:
        return plain._replace(certificate=HostCertificate(blob.key_type, blob.key_blob))
    except ValueError as exc:
        log.info("a certificate cannot be read: %s", exc)
        return plain


class Trust:
    """What is known about one server before it shows its key.

    Raises HostKeyError where the key that is pinned is none.
    """

    def __init__(self, server: SshServer, own: Path) -> None:
        self._server = server
        self._own = own
        self.name = server.host_key_alias or name_of(server.host, server.port)
        files = (own, *server.known_hosts)
        self._known = known_hosts.find(self.name, files)
        if not (self._known.keys or self._known.authorities or server.host_key_alias or self.name == server.host):
            # As ssh: what is known of the machine holds for its other ports (sshconnect.c, check_host_key).
            self._known = known_hosts.find(server.host, files)
        if server.host_key is not None:
            self._known.keys = {server.host_key: "the registry"}
        try:
            self._fingerprints = sorted(map(fingerprint, self._known.keys))
        except (IndexError, ValueError):
            raise HostKeyError(
                f"the host key of {self.name} that is stored with the node is damaged",
                hint="`rbee setup remove-node` forgets it with the node; then add the node again",
            ) from None

    def algorithms(self, offered: Sequence[str]) -> list[str]:
        """Return the host key algorithms, those of known keys first, so that the server shows a key to compare."""
        setting = self._server.algorithms.host_keys
        found = algorithms.chosen("HostKeyAlgorithms", setting, offered)
        if not self._known.authorities:
            found = [name for name in found if not name.endswith(CERTIFICATE)]
        if self._server.host_key is None and not algorithms.is_adjusted(setting):
            return found
        types = [key.split()[0] for key in self._known.keys]
        known = [name for kind in types for name in (RSA if kind == "ssh-rsa" else (kind,))]
        # A certificate comes before keys, as ssh has it, unless one key is pinned.
        of_certificate = -1 if self._server.host_key is None else 2
        return sorted(
            found, key=lambda name: of_certificate if name.endswith(CERTIFICATE) else 0 if name in known else 1
        )

    def check(self, shown: ShownKey, accepted: str | None) -> bool:
        """Return whether the key is known already; False for one that is new and to be accepted.

        It is accepted by its fingerprint, or by StrictHostKeyChecking. Raises HostKeyError for a key that is revoked,
        that is not known, or that has changed.
        """
        key, known = shown.key, self._known
        if shown.rsa_bits is not None and shown.rsa_bits < self._server.smallest_rsa:
            words = f"is too short: {shown.rsa_bits} bits, and ssh's settings want {self._server.smallest_rsa}"
            raise self._error(words, key, hint=_SHORT, known=[])
        authority = shown.certificate.authority if shown.certificate is not None else ""
        if (place := known.revoked.get(key) or known.revoked.get(authority)) is not None:
            raise self._error(f"is revoked: {fingerprint(key)}, by {place}", key, hint=_REVOKED, known=[])
        if (file := self._server.revoked_host_keys) is not None:
            shown_keys = [key] if shown.certificate is None else [key, shown.certificate.line, authority]
            if (reason := revocation.reason(file, shown_keys)) is not None:
                raise self._error(f"is revoked: {fingerprint(key)}, {reason}", key, hint=_REVOKED, known=[])
        if key in known.keys or self._is_trusted_here():
            return True
        if shown.certificate is not None and authority in known.authorities:
            name = self._server.host_key_alias or self._server.host
            if (problem := shown.certificate.problem(name)) is None:
                return True
            raise self._error(
                f"has a certificate that proves nothing: {problem}", key, hint=_CERTIFICATE.format(name), known=[]
            )
        found = fingerprint(key)
        strict = self._server.strict if accepted in (None, found) else "ask"  # what is named for this once counts more
        if known.keys:
            return self._changed(key, is_fatal=strict != "no")
        if accepted == found or strict in ("no", "accept-new"):
            return False
        raise self._error(
            f"is not known: {found} ({key.split(maxsplit=1)[0]})"
            + (f", and {accepted} was to be accepted" if accepted else ""),
            key,
            hint=f"compare it with `ssh-keygen -lf {_host_key_file(key)}` on that machine; "
            f"--accept-host-key {found} accepts it",
        )

    def _is_trusted_here(self) -> bool:
        server = self._server
        is_local = not server.is_proxied and server.host_key_alias is None and addresses.is_loopback(server.host)
        return server.is_trusted_here and is_local

    def _changed(self, key: str, *, is_fatal: bool) -> bool:
        """Raise HostKeyError for a key that is another one than is known, where the user's settings want that."""
        found = fingerprint(key)
        if not is_fatal:
            log.warning("the host key of %s has changed to %s; StrictHostKeyChecking is off", self.name, found)
            return True
        usual = (*ssh_config.USER_KNOWN, *ssh_config.GLOBAL_KNOWN)
        files = [self._own, *(file for file in self._server.known_hosts if private.shown(file) not in usual)]
        forget = [f"`ssh-keygen -R '{self.name}'`", *(f"`-f {private.shown(file)}`" for file in files)]
        raise self._error(
            f"has changed\n  known {', '.join(self._fingerprints)}\n  shown {found}",
            key,
            hint="someone may be listening in. If the machine was set up anew, forget its old key: "
            f"{', the same with '.join(forget)}, and `rbee setup remove-node`; then add the node again",
            known=self._fingerprints,
        )

    def _error(self, words: str, key: str, *, hint: str, known: list[str] | None = None) -> HostKeyError:
        details = {} if known is None else {"known": known}
        message = f"the host key of {self.name} {words}"
        return HostKeyError(message, hint=hint, fingerprint=fingerprint(key), host=self.name, **details)

    def remember(self, key: str) -> None:
        """Append the server's key to our own known hosts. Raises StorageError."""
        known_hosts.remember(self._own, self.name, key, is_hashed=self._server.is_hashed)


_SHORT: Final = "give the machine a longer key, or lower RequiredRSASize in ~/.ssh/config"
_REVOKED: Final = "that key is not to be trusted any more: give the machine a new one, or ask who revoked it"
_CERTIFICATE: Final = "`ssh-keygen -s CA -h -n {}` on the machine of the authority renews it; sshd there shows it then"


def _host_key_file(key: str) -> str:
    """Return where sshd usually has its key of that type."""
    kind = key.split("-", 2)[1] if not key.startswith("ecdsa") else "ecdsa"
    return f"/etc/ssh/ssh_host_{kind.partition(' ')[0]}_key.pub"
