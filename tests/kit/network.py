"""A network of two machines, ours and a node, which a test can part: two network namespaces and a cable in between.

It needs root and Linux's namespaces. Faults are made with routing rules, which everywhere are where `ip` is.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS: Final = "10.77.0.1"
THEIRS: Final = "10.77.0.2"
_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """Say why such a network cannot be made here; None where it can."""
    if shutil.which("unshare") is None:
        return "needs unshare(1)"
    made = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip link add cable type veth peer name end && ip rule add ipproto tcp dport 1 blackhole",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if made.returncode == 0 else f"needs root, ip and network namespaces: {made.stderr.strip()}"


class Network:
    """The namespaces of the calling thread's own, and of the node; what a thread starts is where the thread is."""

    def __init__(self) -> None:
        self._before = _here()
        _unshare()
        self._node = _here()
        _ip("link set lo up")
        # A packet to our own addresses would never get to the rules that follow.
        _ip("rule add pref 10 lookup local", "rule del pref 0")
        _unshare()
        self._ours = _here()
        _ip("link set lo up", f"link add cable type veth peer name cable netns /proc/{os.getpid()}/fd/{self._node}")
        _ip(f"addr add {OURS}/24 dev cable", "link set cable up")
        with self.node():
            _ip(f"addr add {THEIRS}/24 dev cable", "link set cable up")

    @contextmanager
    def node(self) -> Iterator[None]:
        """Be on the node in the block."""
        _enter(self._node)
        try:
            yield
        finally:
            _enter(self._ours)

    def part(self) -> None:
        """Have the node hear and say nothing any longer; nobody is told."""
        with self.node():
            _ip(f"route add blackhole {OURS}/32")

    def heal(self) -> None:
        """Undo `part`."""
        with self.node():
            _ip(f"route del blackhole {OURS}/32")

    def block(self, ports: str) -> None:
        """Have a firewall on the node drop what comes to these ports, such as 8000-9200."""
        with self.node():
            _ip(f"rule add pref 1 iif cable ipproto tcp dport {ports} blackhole")

    def block_ours(self, *, but: int) -> None:
        """Have a firewall on our machine drop what comes from the node to any port but this one."""
        _ip("rule add pref 10 lookup local", "rule del pref 0")
        _ip(f"rule add pref 0 iif cable ipproto tcp dport {but} lookup local")
        _ip("rule add pref 1 iif cable ipproto tcp dport 1024-30000 blackhole")
        _ip("rule add pref 1 iif cable ipproto tcp dport 30001-65534 blackhole")

    def admit(self, port: int) -> None:
        """Let what comes to one port through, whatever is blocked."""
        with self.node():
            _ip(f"rule add pref 0 iif cable ipproto tcp dport {port} lookup local")

    def close(self) -> None:
        """Go back to where the thread was; the namespaces end with their last process."""
        _enter(self._before)
        for descriptor in (self._before, self._node, self._ours):
            os.close(descriptor)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _unshare() -> None:
    if _LIBC.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _enter(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, pass_fds=_inherited(command))


def _inherited(command: str) -> tuple[int, ...]:
    """Return the descriptor that a command names."""
    _, found, number = command.partition("/fd/")
    return (int(number),) if found else ()
