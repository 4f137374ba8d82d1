"""To which node a hive belongs that several nodes take for their own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from rbee import __version__
from rbee.adapters import tokens
from rbee.errors import NodeNotFoundError, VersionMismatchError
from rbee.queen.registry.identity import AnotherHiveError, AnotherSwarmError, Claim, HiveIdentities
from rbee.wire.common import API_VERSION, Health

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

HIVE = "a" * 32
OTHER = "b" * 32
ADDRESS = "192.0.2.7:9200"
ATTICS = f"what answers at {ADDRESS} is the hive of node attic, not that of node "


class Node:
    """A node and its claim, which a test changes."""

    def __init__(self, identities: HiveIdentities, name: str, hive_id: str | None = None, *, proven: bool = False):
        self.claim = Claim(hive_id, proven)
        self._identities = identities
        self.name = name
        identities.enter(name, self)

    def claims(self, hive_id: str | None, *, proven: bool = False) -> None:
        self.claim = Claim(hive_id, proven)
        self._identities.claim_changed()

    def check(self, hive_id: str = HIVE) -> None:
        """Have that hive answer at the node's address. Raises why it cannot be used."""
        self._identities.check(health(hive_id), self.name, ADDRESS, self.claim.hive_id)


def health(hive_id: str, token: str = "token") -> Health:
    swarm = tokens.swarm_id(token)
    return Health(
        status="alive",
        version=__version__,
        api_version=API_VERSION,
        started_by="user",
        hive_id=hive_id,
        swarm=swarm,
    )


@pytest.fixture
def identities() -> HiveIdentities:
    return HiveIdentities("token")


def refused(message: str) -> AbstractContextManager[object]:
    return pytest.raises(AnotherHiveError, match=message)


def test_the_first_that_answers_is_the_nodes_and_that_of_no_other(identities: HiveIdentities) -> None:
    attic, cellar = Node(identities, "attic"), Node(identities, "cellar")
    attic.check()
    cellar.check()
    attic.claims(HIVE)
    attic.check()
    with refused(ATTICS + "cellar"):
        cellar.check()
    with refused(f"what answers at {ADDRESS} is a hive of another installation, not that of node attic"):
        attic.check(OTHER)
    identities.leave("attic")
    cellar.check()


def test_what_a_node_has_named_counts_more_than_what_answered_first(identities: HiveIdentities) -> None:
    cellar, attic = Node(identities, "cellar", HIVE), Node(identities, "attic")
    with refused("is the hive of node cellar, not that of node attic"):
        attic.check()
    attic.claims(HIVE, proven=True)
    attic.check()
    with refused(ATTICS + "cellar"):
        cellar.check()


def test_what_answers_at_the_port_of_this_host_may_be_the_hive_of_any_node(identities: HiveIdentities) -> None:
    local, attic = Node(identities, "local", HIVE), Node(identities, "attic")
    local.check()
    attic.check()
    attic.claims(HIVE)
    with refused(ATTICS + "local"):
        local.check()
    cellar = Node(identities, "cellar")
    local.claims(OTHER, proven=True)
    with refused("is the hive of node local, not that of node cellar"):
        cellar.check(OTHER)


def test_of_two_that_claimed_one_hive_in_the_registry_of_an_earlier_version_one_has_it(
    identities: HiveIdentities,
) -> None:
    attic, cellar = Node(identities, "attic", HIVE), Node(identities, "cellar", HIVE)
    attic.check()
    with refused(ATTICS + "cellar"):
        cellar.check()
    cellar.claims(HIVE, proven=True)
    cellar.check()
    with refused("is the hive of node cellar, not that of node attic"):
        attic.check()


def test_two_that_have_named_one_hive_are_one_machine_with_two_names(identities: HiveIdentities) -> None:
    for name in ("attic", "cellar"):
        Node(identities, name, HIVE, proven=True).check()


def test_a_hive_of_another_swarm_is_none_of_ours(identities: HiveIdentities) -> None:
    Node(identities, "attic", HIVE, proven=True)
    with pytest.raises(AnotherSwarmError, match="does not accept the queen's token"):
        identities.check(health(HIVE, "another"), "attic", ADDRESS, HIVE)


@pytest.mark.parametrize("named_before", [False, True])
async def test_who_uses_a_hive_that_proves_to_be_another_nodes_stops(
    identities: HiveIdentities, autojump_clock: trio.testing.MockClock, *, named_before: bool
) -> None:
    """Also where the other node has named it between the check and the use."""
    Node(identities, "cellar", HIVE)
    attic = Node(identities, "attic")

    async def name_it() -> None:
        await trio.sleep(0 if named_before else 1)
        attic.claims(HIVE, proven=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(name_it)
        await trio.sleep(0.5 if named_before else 0)
        with refused(ATTICS + "cellar"):
            async with identities.fail_if_lost("cellar", ADDRESS):
                await trio.sleep_forever()
    assert trio.current_time() < 2


@pytest.mark.parametrize("later", [HIVE, None, OTHER], ids=["the same", "none", "another"])
async def test_who_uses_a_hive_goes_on_unless_the_node_has_another(
    identities: HiveIdentities, autojump_clock: trio.testing.MockClock, later: str | None
) -> None:
    attic = Node(identities, "attic", HIVE)
    with refused("a hive of another installation") if later == OTHER else nullcontext():
        async with identities.fail_if_lost("attic", ADDRESS):
            await trio.sleep(1)
            attic.claims(later, proven=later is not None)
            await trio.sleep(1)


async def test_what_a_node_has_named_itself_is_not_lost(
    identities: HiveIdentities, autojump_clock: trio.testing.MockClock
) -> None:
    Node(identities, "attic", HIVE, proven=True)
    async with identities.fail_if_lost("attic", ADDRESS):
        Node(identities, "cellar").claims(HIVE, proven=True)
        await trio.sleep(1)


async def test_a_node_that_was_removed_meanwhile_is_not_found(identities: HiveIdentities) -> None:
    Node(identities, "attic", HIVE)
    identities.leave("attic")
    with pytest.raises(NodeNotFoundError):
        async with identities.fail_if_lost("attic", ADDRESS):
            pass


@pytest.mark.parametrize(
    ("changes", "is_usable"),
    [
        ({}, True),
        ({"version": "0.0.9"}, True),
        ({"version": "99.0.0"}, True),
        ({"version": "0.0.1", "hive_id": None, "swarm": None}, False),
        ({"version": "0.0.1", "hive_id": None}, False),
        ({"version": "99.0.0", "api_version": "v2"}, False),
        ({"api_version": "v2"}, False),
    ],
)
def test_versions_of_one_interface_work_together(
    identities: HiveIdentities, changes: dict[str, Any], is_usable: bool
) -> None:
    Node(identities, "attic")
    found = msgspec.structs.replace(health(HIVE), **changes)
    if is_usable:
        identities.check(found, "attic", ADDRESS, None)
        assert identities.version("attic") == found.version
        identities.leave("attic")
    else:
        with pytest.raises(VersionMismatchError) as caught:
            identities.check(found, "attic", ADDRESS, None)
        assert f"rbee-hive {found.version}" in caught.value.message
        assert "`rbee setup install --node attic`" in (caught.value.hint or "")
    assert identities.version("attic") == __version__
