"""Looks whether a host key is revoked by the file that RevokedHostKeys names (ssh_config(5))."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_KRL: Final = b"SSHKRL\n\0"
"""How a list of ssh-keygen's begins (PROTOCOL.krl); else the file has a key in each line."""
SECONDS: Final = 10.0


def reason(file: Path, keys: Sequence[str]) -> str | None:
    """Return why the key that was shown is not to be trusted; None where nothing is against it.

    `keys` are that key, its certificate and the authority's key, each in the one-line form. As ssh, this trusts none
    where the file cannot be read.
    """
    try:
        content = regular.read(file)
    except OSError as exc:
        return f"RevokedHostKeys cannot be read: {exc.strerror}"
    if content.startswith(_KRL):
        return _asked(file, keys)
    listed = {tuple(line.split()[:2]) for line in content.decode("utf-8", "replace").splitlines()}
    return "by RevokedHostKeys" if any(tuple(key.split()) in listed for key in keys) else None


def _asked(file: Path, keys: Sequence[str]) -> str | None:
    """Ask ssh-keygen, which reads its own lists; it takes a certificate's authority into account itself."""
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as shown:
        shown.write("".join(f"{key}\n" for key in keys))
        shown.flush()
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                ["ssh-keygen", "-Q", "-f", file, shown.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=SECONDS,
            )
            if done.returncode == 0:
                return None
            if b"REVOKED" in done.stdout:
                return "by RevokedHostKeys"
    return "RevokedHostKeys cannot be read: ssh-keygen does not answer"
