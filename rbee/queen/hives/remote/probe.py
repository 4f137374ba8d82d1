"""Asks a machine over SSH what it is: system, Pythons, graphics cards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.errors import SshFailedError
from rbee.queen.hives.remote import script

if TYPE_CHECKING:
    from rbee.adapters.ssh.connection import SshConnection

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 14)
OLDEST_GLIBC: Final = (2, 34)
OLDEST_GLIBC_FROM_SOURCE: Final = (2, 28)
"""The wheels that are packed into a program that is built there run with this one, as shiv.toml says."""
ANSWER_SECONDS: Final = 30.0
MAX_HOME: Final = 512
"""Characters of a home folder's path; an install path below it is at most twice that."""


class Python(NamedTuple):
    """A Python of another machine; `misfit` is why our modules cannot be loaded into it, as the launcher finds it."""

    implementation: str
    version: tuple[int, ...]
    path: str
    lacks: tuple[str, ...] = ()
    misfit: str = ""

    @property
    def fits(self) -> bool:
        """Whether the executable runs under it."""
        is_right = self.implementation == "cpython" and OLDEST_PYTHON <= self.version[:2] <= NEWEST_PYTHON
        return is_right and not self.lacks and not self.misfit

    def __str__(self) -> str:
        missing = f" without {' and '.join(self.lacks)}" if self.lacks else ""
        misfit = f" ({self.misfit.replace('-', ' ', 1) if self.misfit != 'free-threaded' else self.misfit})"
        return f"{self.implementation} {'.'.join(map(str, self.version))}{misfit if self.misfit else ''}{missing}"


class Machine(NamedTuple):
    """What was found out about another machine; `gpus` are the names of its NVIDIA cards.

    `kept` is the Python that was named for its installation before, if it still runs.
    """

    home: str
    system: str
    architecture: str
    libc: str
    pythons: list[Python]
    gpus: list[str]
    kept: Python | None = None

    @property
    def backends(self) -> list[str]:
        return ["cpu", "cuda"] if self.gpus else ["cpu"]

    @property
    def devices(self) -> dict[str, int]:
        return {"cpu": 1} | ({"cuda": len(self.gpus)} if self.gpus else {})

    def absolute(self, path: str) -> str:
        return f"{self.home.rstrip('/')}/{path.removeprefix('~/')}" if path.startswith("~/") else path

    def python(self) -> Python | None:
        """Return the Python that was named before, else the newest one under which the executable runs."""
        if self.kept is not None and self.kept.fits:
            return self.kept
        return max((python for python in self.pythons if python.fits), key=lambda python: python.version, default=None)

    def obstacles(self, *, from_source: bool = False) -> list[str]:
        """Return what keeps our executable, or one that is built there, from running; empty where nothing does."""
        obstacles = []
        if (self.system, self.architecture) != ("Linux", "x86_64"):
            obstacles.append(f"it is {self.system} on {self.architecture}, and rbee.pyz is for Linux on x86_64")
        version = re.fullmatch(r"glibc (\d{1,4})\.(\d{1,4}).*", self.libc)
        needed = OLDEST_GLIBC_FROM_SOURCE if from_source else OLDEST_GLIBC
        if version is None or (int(version[1]), int(version[2])) < needed:
            oldest = ".".join(map(str, needed))
            obstacles.append(f"its C library is {self.libc or 'unknown'}, and rbee.pyz needs glibc {oldest} or newer")
        if self.python() is None:
            there = ", ".join(dict.fromkeys(map(str, self.pythons))) or "none"
            obstacles.append(f"it has no CPython from 3.11 to 3.14; found: {there}")
        return obstacles


async def probe(connection: SshConnection, *, install: str = "", python: str = "") -> Machine:
    """Ask the machine; `python` is the path of the only Python to ask, or of its folder.

    `install` is where an installation may be. Raises SshFailedError when the machine does not answer soon, or not in
    the expected form.
    """
    facts: script.Facts = {}
    with trio.move_on_after(ANSWER_SECONDS) as patience:
        facts = await script.run(connection, "probe", {"install": install, "python": python})
    if patience.cancelled_caught:
        raise SshFailedError(
            f"the login shell there did not run a command within {ANSWER_SECONDS:g} s", reason="timeout"
        )

    def one(name: str) -> str:
        return facts.get(name, [""])[0][:MAX_HOME]

    home = one("home")
    if not home.startswith("/") or not home.isprintable() or len(home) >= MAX_HOME:
        raise SshFailedError(
            "the machine does not say where the user's home folder is",
            hint="see that `ssh` there gives a shell that runs commands: try `ssh … echo hello`",
            reason="command",
        )
    return Machine(
        home,
        one("system"),
        one("machine"),
        one("libc"),
        [_python(text) for text in facts.get("named", []) + facts.get("python", [])],
        [name[:MAX_HOME] for name in facts.get("gpu", [])[:1024]],
        _python(facts["kept"][0]) if "kept" in facts else None,
    )


def _python(text: str) -> Python:
    implementation, version, misfit, lacks, path = [*text.split(" ", 4), "", "", "", ""][:5]
    numbers = tuple(int(part) for part in version.split(".") if re.fullmatch("[0-9]{1,4}", part))
    return Python(
        implementation, numbers, path, () if lacks == "-" else tuple(lacks.split(",")), "" if misfit == "-" else misfit
    )
