"""Opens SSH connections without having imported paramiko before the first: it takes 0.1 s to 0.3 s and 15 MB."""

from __future__ import annotations

import importlib
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rbee.adapters.ssh.connection import Connection
    from rbee.adapters.ssh.target import Target


@asynccontextmanager
async def connect(
    target: Target, *, own_known_hosts: Path, seconds: float, accept: str | None = None
) -> AsyncIterator[Connection]:
    """Open a connection as `ssh.connect` does; the first one imports what it takes, beside the event loop."""
    # paramiko imports this where it can, for a directive of ssh_config that nobody here reads: half of its time.
    sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
    await trio.to_thread.run_sync(importlib.import_module, "rbee.adapters.ssh.connection")
    from rbee.adapters.ssh import connection as ssh

    async with ssh.connect(target, own_known_hosts=own_known_hosts, seconds=seconds, accept=accept) as connection:
        yield connection
