"""Why a hive of another machine does not answer: not started, off and unreachable are three words."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from rbee.adapters.config import Settings
from rbee.queen.hives.remote import reach
from rbee.queen.hives.remote.reach import Reach
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.registry.record import NodeRecord
from tests.kit.ports import own_address
from tests.kit.remote_nodes import row

if TYPE_CHECKING:
    from rbee.queen.registry.table import Registry

LOCATED = {"hive_url": "http://127.0.0.1:9200"}


def made(address: str, **values: Any) -> Reach:
    identities = HiveIdentities("token")
    found = msgspec.structs.replace(row("attic", address), **values)
    record = NodeRecord(found, cast("Registry", None), identities)
    return Reach(record, Settings(), "token", identities)


@pytest.mark.parametrize("values", [{}, LOCATED, {"status": "unreachable", "last_error": "x"}])
async def test_a_machine_that_refuses_the_connection_has_no_hive(values: dict[str, str]) -> None:
    address = own_address()
    hive = made(address, **values)
    assert await hive.find() is None
    reason = f"no hive runs there (nothing listens at {address}:9200); the first request starts it"
    assert hive.absence == ("not started", reason)


@pytest.mark.parametrize(
    ("values", "state", "reason"),
    [
        (LOCATED, "off", "nothing answers at {}:9200: the machine is off, or a firewall is in between"),
        ({}, "not started", "its hive was not needed yet; the first request starts it"),
        (
            LOCATED | {"status": "unreachable", "last_error": "SSH failed: the key was refused\nmore"},
            "unreachable",
            "SSH failed: the key was refused",
        ),
    ],
)
async def test_an_address_that_is_silent(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], state: str, reason: str
) -> None:
    """A listener whose queue is full is silent, as a machine that is off."""
    monkeypatch.setattr(reach, "HEALTH_SECONDS", 20)
    monkeypatch.setattr(reach, "CONNECTING_SECONDS", 0.5)
    address = own_address()
    with socket.socket() as listener, socket.socket() as one, socket.socket() as other:
        listener.bind((address, 9200))
        listener.listen(0)
        for waiting in (one, other):
            waiting.setblocking(False)
            waiting.connect_ex((address, 9200))
        hive = made(address, **values)
        assert await hive.find() is None
    assert hive.absence == (state, reason.format(address))


async def test_a_program_that_does_not_answer_is_no_hive_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "HEALTH_SECONDS", 20)
    monkeypatch.setattr(reach, "CONNECTING_SECONDS", 0.5)
    address = own_address()
    with socket.socket() as listener:
        listener.bind((address, 9200))
        listener.listen()
        hive = made(address, **LOCATED)
        assert await hive.find() is None
    assert hive.absence == ("unreachable", f"what listens at {address}:9200 does not answer")


async def test_a_name_that_is_not_known() -> None:
    hive = made("no-such-host.invalid", **LOCATED)
    assert await hive.find() is None
    assert hive.absence.state == "unreachable"


async def test_a_node_behind_ssh_alone_was_not_needed_yet() -> None:
    hive = made("192.0.2.1", tunnel="always")
    assert await hive.find() is None
    assert hive.absence.state == "not started"
