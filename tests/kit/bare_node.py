"""Another machine with nothing but sshd and a Python, at a loopback address of its own."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rbee.adapters.daemon import process
from tests.kit.ports import own_address
from tests.kit.proxy import Proxy
from tests.kit.sshd import Sshd

if TYPE_CHECKING:
    from pathlib import Path

PATH = f"{sys.base_exec_prefix}/bin:/usr/bin:/bin"


class BareNode:
    """A node called `name`; `env` is what its sessions find, `options` stand in its sshd_config."""

    def __init__(
        self, folder: Path, name: str = "workstation", *, env: dict[str, str] | None = None, **options: str
    ) -> None:
        self.name = name
        variables = {"HOME": str(folder / "home"), "PATH": PATH} | (env or {})
        self.variables = " ".join(f'"{key}={value}"' for key, value in variables.items())
        self.sshd = Sshd(folder, own_address(), **({"SetEnv": self.variables} | options))
        self.home = self.sshd.home
        self.install = self.home / "node"
        self.port = self.sshd.port
        self._proxy: Proxy | None = None

    def behind_proxy(self) -> Proxy:
        """Have the way to it go through a proxy from now on."""
        if self._proxy is None:
            self._proxy = Proxy((self.sshd.address, self.sshd.port), host=self.sshd.address)
            self.port = self._proxy.port
        return self._proxy

    def description(self, **changes: Any) -> dict[str, Any]:
        """Return what a user says of it to the queen."""
        return {
            "node_name": self.name,
            "ssh_host": self.sshd.address,
            "ssh_port": self.port,
            "ssh_user": self.sshd.user,
            "ssh_key_path": str(self.sshd.key),
            "install_path": "~/node",
            "accept_host_key": self.sshd.fingerprint,
        } | changes

    def close(self) -> None:
        """Leave nothing of it."""
        if self._proxy is not None:
            self._proxy.close()
        for identity in process_of_home(str(self.home)):
            with suppress(ProcessLookupError):
                process.send_signal(identity, signal.SIGKILL)
        self.sshd.stop()


def process_of_home(home: str) -> list[process.Identity]:
    """Return the processes whose home folder this is."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:  # noqa: PTH123
            if f"HOME={home}".encode() in environ.read().split(b"\0"):
                found.append(process.identify(int(name)))
    return [identity for identity in found if identity is not None]
