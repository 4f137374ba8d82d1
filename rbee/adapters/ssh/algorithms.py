"""Chooses the algorithms of a connection: OpenSSH's usual ones that rbee has, or those of the settings. (PURE)

rbee has what paramiko has, which would also offer old ones that no `ssh` of today does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rbee.adapters.ssh.settings import config_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

CERTIFICATE: Final = "-cert-v01@openssh.com"
RSA: Final = ("rsa-sha2-512", "rsa-sha2-256")
"""A key's type names its signature algorithm, except for RSA (RFC 8332)."""
_KEYS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *RSA)
USUAL: Final = {
    "KexAlgorithms": (
        "mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256",
    ),
    # Those with a hash of their own first: half the processor time.
    "Ciphers": ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"),
    "MACs": (
        "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512", "hmac-sha1",
    ),
    "HostKeyAlgorithms": (*(f"{name}{CERTIFICATE}" for name in _KEYS), *_KEYS),
    "PubkeyAcceptedAlgorithms": (*(f"{name}{CERTIFICATE}" for name in _KEYS), *_KEYS),
}  # fmt: skip
"""By the keyword that changes them, in the order in which they are offered (myproposal.h)."""


@dataclass(frozen=True)
class Algorithms:
    """What ssh's settings say of them; None where they say nothing."""

    kex: str | None = None
    ciphers: str | None = None
    macs: str | None = None
    host_keys: str | None = None
    keys: str | None = None


def chosen(keyword: str, setting: str | None, offered: Sequence[str]) -> list[str]:
    """Return the algorithms to use of those that are `offered`, best first (ssh_config(5), KexAlgorithms)."""
    usual = [name for name in USUAL[keyword] if name in offered]
    if not setting:
        return usual
    how, patterns = (setting[0], setting[1:]) if setting[0] in "+-^" else ("", setting)
    named: list[str] = []
    for pattern in patterns.split(","):
        named += [name for name in offered if config_lines.matches(name, pattern.strip()) and name not in named]
    if how == "+":
        return [*usual, *(name for name in named if name not in usual)]
    if how == "-":
        return [name for name in usual if name not in named]
    return [*named, *(name for name in usual if name not in named)] if how == "^" else named


def is_adjusted(setting: str | None) -> bool:
    """Whether the usual order counts: of a list of the user's own that is the order (sshconnect2.c, ssh_kex2)."""
    return not setting or setting[0] in "+-"
