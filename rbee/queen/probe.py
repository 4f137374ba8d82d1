"""Asks a machine over SSH what it is: system, Pythons, graphics cards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import SshFailedError
from rbee.queen import remote_script

if TYPE_CHECKING:
    from rbee.adapters.ssh import Connection

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 14)
OLDEST_GLIBC: Final = (2, 34)


class Python(NamedTuple):
    """A Python of another machine."""

    implementation: str
    version: tuple[int, ...]
    path: str

    @property
    def fits(self) -> bool:
        """Whether the executable runs under it."""
        return self.implementation == "cpython" and OLDEST_PYTHON <= self.version[:2] <= NEWEST_PYTHON

    def __str__(self) -> str:
        return f"{self.implementation} {'.'.join(map(str, self.version))} ({self.path})"


class Machine(NamedTuple):
    """What another machine is; `gpus` are the names of its NVIDIA cards."""

    home: str
    system: str
    architecture: str
    libc: str
    pythons: list[Python]
    gpus: list[str]

    @property
    def backends(self) -> list[str]:
        """The backends that it has devices for."""
        return ["cpu", "cuda"] if self.gpus else ["cpu"]

    @property
    def devices(self) -> dict[str, int]:
        """How many devices each backend has."""
        return {"cpu": 1} | ({"cuda": len(self.gpus)} if self.gpus else {})

    def absolute(self, path: str) -> str:
        """Return a path of that machine with its ~/ replaced."""
        return f"{self.home.rstrip('/')}/{path.removeprefix('~/')}" if path.startswith("~/") else path

    def python(self) -> Python | None:
        """Return the newest Python that the executable runs under."""
        return max((python for python in self.pythons if python.fits), key=lambda found: found.version, default=None)

    def obstacles(self) -> list[str]:
        """Say what keeps the executable from running there; empty where nothing does."""
        found = []
        if (self.system, self.architecture) != ("Linux", "x86_64"):
            found.append(f"it is {self.system} on {self.architecture}, and rbee.pyz is for Linux on x86_64")
        version = re.fullmatch(r"glibc (\d+)\.(\d+).*", self.libc)
        if version is None or (int(version[1]), int(version[2])) < OLDEST_GLIBC:
            oldest = ".".join(map(str, OLDEST_GLIBC))
            found.append(f"its C library is {self.libc or 'unknown'}, and rbee.pyz needs glibc {oldest} or newer")
        if self.python() is None:
            there = ", ".join(map(str, self.pythons)) or "none"
            found.append(f"it has no CPython from 3.11 to 3.14; found: {there}")
        return found


async def probe(connection: Connection) -> Machine:
    """Ask; raises SshFailedError when the machine does not answer in the expected form."""
    said = await remote_script.run(connection, "probe", {})

    def one(name: str) -> str:
        return said.get(name, [""])[0]

    home = one("home")
    if not home.startswith("/") or "\n" in home:
        raise SshFailedError("the machine does not say where the user's home folder is", reason="command")
    return Machine(
        home,
        one("system"),
        one("machine"),
        one("libc"),
        [_python(text) for text in said.get("python", [])],
        said.get("gpu", []),
    )


def _python(text: str) -> Python:
    implementation, version, path = [*text.split(" ", 2), "", ""][:3]
    return Python(implementation, tuple(int(part) for part in version.split(".") if part.isdigit()), path)
