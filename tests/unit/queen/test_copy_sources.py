"""At which URL another machine reaches a hive, and that none is told where it reaches only itself there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from rbee.adapters.config import HiveSettings, Settings
from rbee.queen.hives.local import LocalHive
from rbee.queen.hives.remote.hive import RemoteHive
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.registry.record import NodeRecord
from tests.kit.remote_nodes import row

if TYPE_CHECKING:
    from rbee.queen.registry.table import Registry
    from rbee.wire.registry import Tunnel


def remote(address: str, tunnel: Tunnel = "never") -> RemoteHive:
    found = msgspec.structs.replace(row("attic", address), tunnel=tunnel)
    registry = cast("Registry", None)
    identities = HiveIdentities("token")
    return RemoteHive(NodeRecord(found, registry, identities), Settings(), "token", identities)


def local(host: str, advertise: str | None = None) -> LocalHive:
    settings = Settings(hive=HiveSettings(host=host, advertise=advertise))
    return LocalHive(settings, "token", None, HiveIdentities("token"), ephemeral=False)


def test_a_remote_hive_is_reached_as_the_queen_reaches_it() -> None:
    hive = remote("192.0.2.7")
    assert hive.outside("http://192.0.2.7:9200") == "http://192.0.2.7:9200"
    assert not hive.is_here


def test_one_behind_ssh_is_the_queens_alone() -> None:
    hive = remote("192.0.2.7", "always")
    assert hive.outside("http://127.0.0.1:40000") is None
    assert not hive.is_here
    assert not remote("127.0.0.1", "always").is_here, "such as a container, whose loopback is another"


@pytest.mark.parametrize("address", ["127.4.5.6", "localhost", "::1"])
def test_one_at_a_loopback_address_is_on_the_queens_host(address: str) -> None:
    assert remote(address).is_here
    assert remote(address).outside(f"http://{address}:9200") is None


@pytest.mark.parametrize(
    ("host", "advertise", "url", "outside"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:9200", None),
        ("0.0.0.0", None, "http://0.0.0.0:9200", None),
        ("::", None, "http://[::]:9200", None),
        ("0.0.0.0", "192.0.2.1", "http://0.0.0.0:9201", "http://192.0.2.1:9201"),
        ("192.0.2.1", None, "http://192.0.2.1:9200", "http://192.0.2.1:9200"),
        ("2001:db8::1", None, "http://[2001:db8::1]:9200", "http://[2001:db8::1]:9200"),
        ("bees.example", None, "http://bees.example:9200", "http://bees.example:9200"),
    ],
)
def test_the_queens_own_hive_is_reached_where_it_listens_for_others(
    host: str, advertise: str | None, url: str, outside: str | None
) -> None:
    assert local(host, advertise).outside(url) == outside


@pytest.mark.parametrize(
    ("address", "url", "reached"),
    [
        ("192.0.2.7", "http://192.0.2.7:8001", "http://192.0.2.7:8001"),
        ("192.0.2.7", "http://127.0.0.1:8001", "http://192.0.2.7:8001"),
        ("192.0.2.7", "http://0.0.0.0:8001", "http://192.0.2.7:8001"),
        ("attic", "http://[::]:8001", "http://attic:8001"),
        ("2001:db8::7", "http://127.0.0.1:8001", "http://[2001:db8::7]:8001"),
        ("192.0.2.7", "http://bees.example:8001", "http://bees.example:8001"),
        ("127.4.5.6", "http://127.4.5.6:8001", "http://127.4.5.6:8001"),
    ],
)
def test_a_worker_is_reached_where_its_hive_is(address: str, url: str, reached: str) -> None:
    """One that listens on every address of its machine, or a hive of an earlier version, names none of them."""
    assert remote(address).worker_url(url) == reached


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("http://0.0.0.0:8001", "http://127.0.0.1:8001"),
        ("http://[::]:8001", "http://[::1]:8001"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://192.0.2.1:8001", "http://192.0.2.1:8001"),
    ],
)
def test_no_worker_of_this_host_is_reached_at_every_address(url: str, reached: str) -> None:
    assert local("0.0.0.0", None).worker_url(url) == reached
