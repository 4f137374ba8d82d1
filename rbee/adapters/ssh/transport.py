"""The transport of paramiko, with the algorithms that ssh's settings choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import paramiko

from rbee.adapters.ssh.algorithms import USUAL, chosen
from rbee.adapters.ssh.failure import failed

if TYPE_CHECKING:
    from rbee.adapters.ssh.target import SshServer
    from rbee.adapters.ssh.trust import Trust

_HAS: Final[Any] = paramiko.Transport
"""What it has is told by names that are its own."""
_NEW_NAMES: Final = {"curve25519-sha256": "curve25519-sha256@libssh.org"}
"""Of one algorithm (RFC 8731): paramiko knows one of them, and a server may know the other alone."""


class Transport(paramiko.Transport):
    """paramiko's, with exactly the algorithms that were chosen."""

    _kex_info: ClassVar[dict[str, Any]] = {
        **_HAS._kex_info,
        **{new: _HAS._kex_info[old] for new, old in _NEW_NAMES.items() if old in _HAS._kex_info},
    }
    chosen_keys: tuple[str, ...] = ()
    chosen_pubkeys: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Those of the host; paramiko would add those of certificates itself."""
        return self.chosen_keys

    @property
    def preferred_pubkeys(self) -> tuple[str, ...]:
        """Those of the user."""
        return self.chosen_pubkeys

    def choose(self, server: SshServer, trust: Trust) -> None:
        """Choose as the settings say. Raises SshFailedError where those name none that rbee has."""
        asked, of_keys = server.algorithms, tuple(_HAS._key_info)
        found = {
            "KexAlgorithms": chosen("KexAlgorithms", asked.kex, tuple(self._kex_info)),
            "Ciphers": chosen("Ciphers", asked.ciphers, tuple(_HAS._cipher_info)),
            "MACs": chosen("MACs", asked.macs, tuple(_HAS._mac_info)),
            "HostKeyAlgorithms": trust.algorithms(of_keys),
        }
        for keyword, names in found.items():
            if not names:
                error = failed(server, "refused", f"{keyword} of ssh's settings names none that rbee has")
                error.hint = f"it has {', '.join(USUAL[keyword])}"
                raise error
        security = self.get_security_options()
        security.kex, security.ciphers, security.digests, self.chosen_keys = map(tuple, found.values())
        self.chosen_pubkeys = tuple(chosen("PubkeyAcceptedAlgorithms", asked.keys, of_keys))
