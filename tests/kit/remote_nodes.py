"""Registered nodes without SSH: hives that run already, each at a loopback address of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio

from rbee.adapters.store.sqlite import Store
from rbee.queen.registry.table import MIGRATIONS, Registry
from rbee.wire.registry import BeehiveRow

if TYPE_CHECKING:
    from pathlib import Path

HIVE_PORT = "9200"


def register(home: Path, *nodes: tuple[str, str], **changed: Any) -> None:
    """Write nodes, name and address, into the registry of a queen that does not run."""

    async def write() -> None:
        store = await Store.open(home / "beehives.db", MIGRATIONS)
        for name, address in nodes:
            await Registry(store).add(msgspec.structs.replace(row(name, address), **changed))
        await store.close()

    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    trio.run(write)


def row(name: str, address: str) -> BeehiveRow:
    """Return the row of a node that is reached directly, and never by SSH."""
    return BeehiveRow(
        node_name=name,
        ssh_host=address,
        ssh_port=1,  # nobody listens there
        ssh_user="nobody",
        ssh_key_path=None,
        git_repo_url=None,
        git_branch="main",
        install_path="/nowhere",
        tunnel="never",
        host_key="",
        last_connected_unix=None,
        last_error=None,
        status="unknown",
        backends=[],
        devices={},
        spawned_by_queen=False,
    )


def start_hive(daemons: Any, name: str, address: str, **environment: str) -> Any:
    """Start the hive of a node, with a state folder of its own beside the queen's, and the queen's token."""
    home = daemons.home.with_name(name)
    return daemons.start(
        "hive",
        home=home,
        RBEE_HIVE_HOST=address,
        RBEE_HIVE_PORT=HIVE_PORT,
        RBEE_AUTH_TOKEN_FILE=str(daemons.home / "token"),
        **environment,
    )
