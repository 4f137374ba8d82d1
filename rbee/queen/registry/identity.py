"""Checks that the hive that answers at a node's address is the hive of that node."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import trio

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.http import port_users, proof
from rbee.concurrency.background import open_background
from rbee.concurrency.changed import Changed
from rbee.errors import NodeNotFoundError, PortInUseError, VersionMismatchError
from rbee.narrower_errors import KeyRefusedError
from rbee.wire.common import API_VERSION
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.http.proof import Challenge
    from rbee.wire.common import Health


class AnotherHiveError(PortInUseError):
    """What answers is not a hive, or it is the hive of another node or installation."""


class AnotherSwarmError(KeyRefusedError):
    """The hive that answers has another token."""


OTHERS: Final = (AnotherHiveError, AnotherSwarmError)
"""Another program has the address; the node's own hive may listen elsewhere."""


class Claim(NamedTuple):
    """Which hive a node takes for its own, if any.

    It is proven once the node itself has named it, over SSH or in the lock file of this host. Until then it is a guess:
    that hive answered first at the node's address.
    """

    hive_id: str | None
    is_proven: bool


class Claimant(Protocol):
    """A node that knows its claim."""

    @property
    def claim(self) -> Claim:
        """Which hive the node takes for its own now."""
        ...


class HiveIdentities:
    """Knows which hive belongs to which node: the one that has proven its claim, else the first that has guessed.

    A hive names itself before the queen shows it the token: its address may have been given to another machine, lead
    through a port that is forwarded, or be shared by two installations.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._swarm = tokens.swarm_id(token)
        self._claimants: dict[str, Claimant] = {}
        self._versions: dict[str, str] = {}
        self._proven: set[str] = set()
        self._changed = Changed()

    def enter(self, node: str, claimant: Claimant) -> None:
        """Take in a node."""
        self._claimants[node] = claimant

    def leave(self, node: str) -> None:
        """Forget a node: the hive that was its own may be another one's."""
        del self._claimants[node]
        self._versions.pop(node, None)
        self._proven.discard(node)

    def version(self, node: str) -> str:
        """Return the version of the node's hive when it last answered; this program's until it has."""
        return self._versions.get(node, __version__)

    def challenge(self, *, at: str = "") -> Challenge:
        """Return what a hive is asked to prove: that it knows the token. With `at`, only one there may."""
        return proof.challenge(self._token, "hive", at=at)

    def check_proof(self, health: Health, challenge: Challenge, node: str, address: str, *, must: bool = False) -> None:
        """Raise AnotherSwarmError for a hive that pretends to be of our swarm: it gives no proof, or a wrong one.

        One of the time before there were proofs gives none, and is believed, unless it `must`, or the node's hive has
        given one before.
        """
        if health.swarm != self._swarm:
            return  # which `check` says
        if challenge.is_met_by(health.proof):
            self._proven.add(node)
        elif health.proof is not None or must or node in self._proven:
            raise _unproven(node, address)

    def vouch(self, node: str) -> None:
        """The node itself has named its hive, or got another version of it: that one may be of the time before."""
        self._proven.discard(node)

    def claim_changed(self) -> None:
        """The claim of a node has changed: another one may lose the hive that it took for its own."""
        self._changed.notify()

    def check(self, health: Health, node: str, address: str, expected: str | None) -> None:
        """Raise why the hive that answers at `address` cannot be used as the node's.

        `expected` is the id of that hive, where it is known: else any hive that is no other node's will do. The version
        comes last: an installation would not help against a stranger. Another one of the same interface will do, so
        that a swarm can be brought from one version to the next node by node.
        """
        is_same = health.hive_id is not None and health.hive_id == expected
        if health.swarm not in (None, self._swarm):
            raise refused(node, address, is_same=is_same)
        if health.hive_id is not None and (
            expected not in (None, health.hive_id) or self._other_owner(health.hive_id, node) is not None
        ):
            raise self._another(node, address, health.hive_id)
        if health.api_version != API_VERSION:
            raise _version(node, health.version)
        if health.hive_id is None or health.swarm is None:
            if health.version != __version__:
                raise _version(node, health.version)  # of the time before hives said which they are
            raise no_hive(node, address)  # but another program of rbee's
        self._versions[node] = health.version

    @asynccontextmanager
    async def fail_if_lost(self, node: str, address: str) -> AsyncIterator[None]:
        """Run the block, which uses the hive at `address` as the node's; cancel it once that proves to be another's.

        Raises AnotherHiveError then.
        """
        if (claimant := self._claimants.get(node)) is None:
            raise NodeNotFoundError(f"node {node} was removed meanwhile", node=node)
        hive_id, is_proven = claimant.claim
        if hive_id is None or is_proven:
            yield
            return
        async with open_background() as nursery:
            with trio.CancelScope() as block:

                async def watch() -> None:
                    while claimant.claim.hive_id in (None, hive_id) and self._other_owner(hive_id, node) is None:
                        await self._changed.next.wait()
                    block.cancel()

                nursery.start_soon(watch)
                yield
        if block.cancelled_caught:
            raise self._another(node, address, hive_id)

    def _other_owner(self, hive_id: str, node: str) -> str | None:
        """Return the other node to which the hive belongs; None where that is `node`, or not known.

        The guess of this host keeps nobody away: a user may start the hive of a node at an address that both have.
        """
        claims = {name: claimant.claim for name, claimant in self._claimants.items()}
        owners = [
            name
            for name, claim in claims.items()
            if claim.hive_id == hive_id and (claim.is_proven or name != LOCAL_NODE)
        ]
        proven = [name for name in owners if claims[name].is_proven]
        if node in proven:
            return None
        owner = next(iter(proven or owners), None)
        return None if owner == node else owner

    def _another(self, node: str, address: str, hive_id: str) -> AnotherHiveError:
        owner = self._other_owner(hive_id, node)
        whose = "a hive of another installation" if owner is None else f"the hive of node {owner}"
        hint = (
            "two hives cannot share an address and a port: end that one, or give this one another port: "
            f"{port_setting(node)}"
        )
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


def port_setting(node: str) -> str:
    """Say where the port of the node's hive is set: what the queen starts over SSH takes no option, and no variable."""
    if node == LOCAL_NODE:
        return "`port` under [hive] in the settings, or RBEE_HIVE_PORT"
    return "`port` under [hive] in config.toml, in its install path there"


def no_hive(node: str, address: str) -> AnotherHiveError:
    """Return the error for another program that answers where the node's hive would listen."""
    return AnotherHiveError(
        f"what answers at {address} is not a hive of rbee",
        hint=f"stop that program, or give the hive another port: {port_setting(node)}",
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


def _unproven(node: str, address: str) -> AnotherSwarmError:
    whose = port_users.whose(f"//{address}") if node == LOCAL_NODE else ""
    return AnotherSwarmError(
        f"authentication failed: the hive at {address}{whose} does not prove that it has the swarm's token, which was "
        "not sent there",
        hint=f"see what listens there: it is not the node's hive; or give that one another port: {port_setting(node)}",
        host=address,
    )


def refused(node: str, address: str, *, is_same: bool = False) -> AnotherSwarmError:
    """Return the error for a hive with another token; `is_same` where it is the node's own nevertheless."""
    hint = (
        f"it may belong to another user or state folder: end it, or give this hive another port: {port_setting(node)}"
    )
    if is_same:
        hint = f"`rbee setup install --node {node}` brings the token there, and ends the hive that has another"
    whose = port_users.whose(f"//{address}") if node == LOCAL_NODE and not is_same else ""
    return AnotherSwarmError(
        f"authentication failed: the hive at {address}{whose} does not accept the queen's token",
        hint=hint,
        host=address,
    )
