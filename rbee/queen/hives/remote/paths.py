"""Where rbee's files lie on a node, below its install path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.wire.registry import BeehiveRow


def program(row: BeehiveRow) -> str:
    """Return the program."""
    return f"{row.install_path}/bin/rbee"


def python(row: BeehiveRow) -> str:
    """Return the link to the Python that runs the program."""
    return f"{row.install_path}/bin/rbee-python"


def config(row: BeehiveRow) -> str:
    """Return the settings of the node's hive."""
    return f"{row.install_path}/config.toml"


def token(row: BeehiveRow) -> str:
    """Return the file with the swarm's token."""
    return f"{row.install_path}/token"


def state(row: BeehiveRow) -> str:
    """Return the state folder of the node's hive."""
    return f"{row.install_path}/state"


def lock(row: BeehiveRow) -> str:
    """Return the file in which the hive says where it listens and which process it is."""
    return f"{state(row)}/hive.lock"
