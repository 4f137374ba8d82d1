"""Opens SSH connections, and imports paramiko with the first of them only: that takes 0.1 s to 0.3 s and 15 MB."""

from __future__ import annotations

import importlib
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rbee.adapters.ssh.connection import SshConnection
    from rbee.adapters.ssh.target import Target


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, seconds: float, accept: str | None = None
) -> AsyncIterator[SshConnection]:
    """Open a connection as `handshake.connect` does; the first one imports paramiko, in a thread."""
    # paramiko imports this where it can, for a directive of ssh_config that rbee does not read: half of its time.
    sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
    await trio.to_thread.run_sync(importlib.import_module, "rbee.adapters.ssh.handshake")
    from rbee.adapters.ssh import handshake

    async with handshake.connect(target, own_known_hosts=own_known_hosts, seconds=seconds, accept=accept) as connection:
        yield connection
