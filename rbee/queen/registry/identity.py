"""Checks that the hive that answers at a node's address is the hive of that node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.daemon import instance
from rbee.errors import KeyRefusedError, PortInUseError, VersionMismatchError
from rbee.wire.common import API_VERSION
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.queen.registry.table import Registry
    from rbee.wire.common import Health


class AnotherHiveError(PortInUseError):
    """What answers is not a hive, or it is the hive of another node or installation."""


class AnotherSwarmError(KeyRefusedError):
    """The hive that answers has another token."""


OTHERS: Final = (AnotherHiveError, AnotherSwarmError)
"""Another program has the address; the node's own hive may listen elsewhere."""


class HiveIdentities:
    """Knows which hive belongs to which node.

    A hive names itself before the queen shows it the token: its address may have been given to another machine, lead
    through a port that is forwarded, or be shared by two installations.
    """

    def __init__(self, settings: Settings, token: str, registry: Registry) -> None:
        self._settings = settings
        self._swarm = tokens.swarm_id(token)
        self._registry = registry

    async def check(self, health: Health, node: str, address: str, expected: str | None) -> None:
        """Raise why the hive that answers at `address` cannot be used as the node's.

        `expected` is the id of that hive, where it is known: else any hive that is no other node's will do. The version
        comes last: an installation would not help against a stranger.
        """
        is_same = health.hive_id is not None and health.hive_id == expected
        if health.swarm not in (None, self._swarm):
            raise refused(node, address, is_same=is_same)
        if health.hive_id is not None and not is_same:
            owner = await self._owner(health.hive_id)
            if owner not in (None, node):
                raise _another(node, address, f"the hive of node {owner}")
            if expected is not None:
                raise _another(node, address, "a hive of another installation")
        if (health.version, health.api_version) != (__version__, API_VERSION):
            raise _version(node, health.version)
        if health.hive_id is None or health.swarm is None:
            raise no_hive(node, address)  # but another program of rbee's

    async def _owner(self, hive_id: str) -> str | None:
        """Return the node whose hive this is known to be, or None."""
        local = instance.find(self._settings.state_dir, "hive")
        if local is not None and local.id == hive_id:
            return LOCAL_NODE
        return await self._registry.node_of(hive_id)


def _port(node: str) -> str:
    if node == LOCAL_NODE:
        return "`port` under [hive] in the configuration, or RBEE_HIVE_PORT"
    return "`port` under [hive] in config.toml, in its install path there"


def no_hive(node: str, address: str) -> AnotherHiveError:
    """Return the error for another program that answers where the node's hive would listen."""
    return AnotherHiveError(
        f"what answers at {address} is not a hive of rbee",
        hint=f"stop that program, or give the hive another port: {_port(node)}",
        node=node,
    )


def _version(node: str, version: str) -> VersionMismatchError:
    return VersionMismatchError(
        f"the versions differ\n  queen-rbee {__version__}\n  rbee-hive {version}",
        hint="end the hive that runs here, and the queen starts its own"
        if node == LOCAL_NODE
        else f"`rbee setup install --node {node}` brings this version to the node",
        node=node,
        queen=__version__,
        hive=version,
    )


def _another(node: str, address: str, whose: str) -> AnotherHiveError:
    hint = f"two hives cannot share an address and a port: end that one, or give this one another port: {_port(node)}"
    if node != LOCAL_NODE:
        hint += (
            f"; `rbee setup update-node --name {node}` corrects an address that is wrong, and takes the hive that "
            "answers there for the node's own"
        )
    return AnotherHiveError(
        f"what answers at {address} is {whose}, not that of node {node}",
        hint=hint,
        node=node,
    )


def refused(node: str, address: str, *, is_same: bool = False) -> AnotherSwarmError:
    """Return the error for a hive with another token; `is_same` where it is the node's own nevertheless."""
    hint = f"it may belong to another user or state folder: end it, or give this hive another port: {_port(node)}"
    if is_same:
        hint = f"`rbee setup install --node {node}` brings the token there, for the hive that starts there next"
    return AnotherSwarmError(
        f"authentication failed: the hive at {address} does not accept the queen's token", hint=hint, host=address
    )
