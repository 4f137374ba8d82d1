"""What a daemon tells the service manager: over a real datagram socket, as sd_notify(3) has it."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.daemon.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

READY = b"READY=1\nSTATUS=up"


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[..., trio.socket.SocketType]]:
    """Listen as a service manager does; `address` is as it stands in NOTIFY_SOCKET."""
    opened = []

    def start(address: str) -> trio.socket.SocketType:
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.append(manager)
        manager.bind("\0" + address[1:] if address.startswith("@") else address)
        return trio.socket.from_stdlib_socket(manager)

    yield start
    for manager in opened:
        manager.close()


async def received(manager: trio.socket.SocketType) -> bytes:
    with trio.fail_after(5):
        return await manager.recv(4096)


@pytest.mark.parametrize("form", ["{path}/notify", "{path}/not ify: ünïcode", "@rbee-test-{random}"])
async def test_it_tells_start_and_end(listen: Callable[..., trio.socket.SocketType], tmp_path: Path, form: str) -> None:
    address = form.format(path=tmp_path, random=secrets.token_hex(8))
    manager = listen(address)
    notifier = Notifier(environment={"NOTIFY_SOCKET": address})
    notifier.ready("The queen answers")
    assert await received(manager) == b"READY=1\nSTATUS=The queen answers"
    notifier.stopping("Ending", 70)
    assert await received(manager) == b"STOPPING=1\nSTATUS=Ending\nEXTEND_TIMEOUT_USEC=70000000"


async def test_it_tells_that_it_lives_twice_in_the_time_it_has(
    listen: Callable[..., trio.socket.SocketType], tmp_path: Path, nursery: trio.Nursery
) -> None:
    manager = listen(address := str(tmp_path / "notify"))
    notifier = Notifier(environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
    started = trio.current_time()
    nursery.start_soon(notifier.keep_alive)
    for _ in range(3):
        assert await received(manager) == b"WATCHDOG=1"
    assert trio.current_time() - started >= 0.4
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
async def test_without_a_watchdog_of_ours_it_sends_no_sign(
    listen: Callable[..., trio.socket.SocketType], tmp_path: Path, watchdog: dict[str, str]
) -> None:
    manager = listen(address := str(tmp_path / "notify"))
    notifier = Notifier(environment={"NOTIFY_SOCKET": address} | watchdog)
    with trio.fail_after(5):
        await notifier.keep_alive()
    notifier.ready("up")
    assert await received(manager) == READY, "the first thing it sends"


async def test_the_watchdog_may_name_our_process(
    listen: Callable[..., trio.socket.SocketType], tmp_path: Path, nursery: trio.Nursery
) -> None:
    manager = listen(address := str(tmp_path / "notify"))
    ours = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    nursery.start_soon(Notifier(environment={"NOTIFY_SOCKET": address} | ours).keep_alive)
    assert await received(manager) == b"WATCHDOG=1"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("enabled", [True, False])
async def test_no_child_can_speak_for_it(
    listen: Callable[..., trio.socket.SocketType], tmp_path: Path, enabled: bool
) -> None:
    manager = listen(address := str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    notifier = Notifier(enabled=enabled, environment=environment)
    assert environment == {"HOME": "/"}
    notifier.ready("up")
    if enabled:
        assert await received(manager) == READY
    else:
        with pytest.raises(BlockingIOError):
            os.read(manager.fileno(), 1)


async def test_without_a_manager_it_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(environment={"WATCHDOG_USEC": "1000"})
    notifier.ready("up")
    await notifier.keep_alive()
    notifier.stopping("down", 1)
    assert caplog.records == []


@pytest.mark.parametrize("address", ["{path}/gone", "vsock:2:1234", "/" + "x" * 200])
def test_a_manager_that_cannot_be_reached_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    notifier = Notifier(environment={"NOTIFY_SOCKET": address.format(path=tmp_path)})
    notifier.ready("up")
    notifier.stopping("down", 1)
    (record,) = caplog.records
    assert record.getMessage().startswith("the service manager could not be told READY=1: ")
    assert str(tmp_path) not in record.getMessage()


def test_a_manager_that_does_not_read_holds_nothing_up(
    listen: Callable[..., trio.socket.SocketType], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listen(address := str(tmp_path / "notify"))
    notifier = Notifier(environment={"NOTIFY_SOCKET": address})
    while not caplog.records:
        notifier.ready("up")
    assert "READY=1" in caplog.records[0].getMessage()
