"""Reports to the service manager how this daemon is doing, by the datagrams of sd_notify(3)."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import MutableMapping

log = logging.getLogger(__name__)

_MICROSECONDS: Final = re.compile(r"[1-9][0-9]{0,15}")


class Notifier:
    """Reports to the manager that started this process as a service; does nothing where none did.

    It takes the protocol's variables out of the environment, so that no child reports for us. With `enabled` false that
    is all: a daemon that another one of ours started is no service, whatever service that one may belong to.

    A message that does not arrive is logged the first time, and has no other consequence.
    """

    def __init__(self, *, enabled: bool = True, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        # A leading @ stands for the zero byte of an abstract socket (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if not enabled:
            self._address = ""
        is_ours = watched == str(os.getpid()) and _MICROSECONDS.fullmatch(microseconds)
        self._interval = int(microseconds) / 2_000_000 if self._address and is_ours else None
        self._has_failed = False

    def ready(self, status: str) -> None:
        """Report that the daemon has started, and in one line for people what it does."""
        self._send("READY=1", f"STATUS={status}")

    def stopping(self, status: str, seconds: float) -> None:
        """Report that the daemon ends, and that it may take so many seconds, whatever the unit allows."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    async def keep_alive(self) -> None:
        """Report twice within the watchdog's time that the event loop turns; without a watchdog return at once."""
        while self._interval is not None:
            self._send("WATCHDOG=1")
            await trio.sleep(self._interval)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager that does not read must not hold up the daemon.
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            if not self._has_failed:
                log.warning("the service manager could not be told %s: %s", lines[0], exc.strerror or exc)
            self._has_failed = True
