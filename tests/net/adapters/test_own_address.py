"""Which addresses are this machine's."""

from __future__ import annotations

import socket

import psutil
import pytest

from rbee.adapters.http.own_address import is_of_this_machine

OURS = [
    address.address
    for addresses in psutil.net_if_addrs().values()
    for address in addresses
    if address.family in (socket.AF_INET, socket.AF_INET6)
]


@pytest.mark.parametrize("host", [*OURS, "127.0.0.1", "127.3.2.1", "0.0.0.0", "::", "localhost"])
async def test_an_address_of_this_machine(host: str) -> None:
    assert await is_of_this_machine(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "203.0.113.9", "2001:db8::1"])
async def test_an_address_of_another_one(host: str) -> None:
    assert not await is_of_this_machine(host)


@pytest.mark.parametrize("host", ["nowhere.invalid", "", "a..b", "x" * 100])
async def test_a_name_that_nobody_knows_is_left_to_who_listens_there(host: str) -> None:
    assert await is_of_this_machine(host)
