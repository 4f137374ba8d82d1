"""Brings rbee to a node: the file that runs here, or one that is built there from its sources."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from rbee import __version__
from rbee.adapters import config, zipapp
from rbee.adapters.logs.redaction import public
from rbee.errors import InstallFailedError, InsufficientDiskError, SshFailedError
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote import script
from rbee.queen.hives.remote.probe import probe
from rbee.wire.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.ssh.connection import SshConnection
    from rbee.queen.hives.remote.probe import Machine
    from rbee.wire.progress import Report
    from rbee.wire.registry import BeehiveRow

PROGRESS_SECONDS: Final = 0.1
"""Between two reports of how much is copied."""
UNPACKED_FACTOR: Final = 4
"""The program and what its first start unpacks take about this many times the file's size."""

_HINT: Final = "--python names the path of a CPython from 3.11 to 3.14 on that machine"
CONFIG: Final = """\
# Settings of this node, made by `rbee setup install`, which keeps what you change here.
[paths]
state_dir = {state}

[auth]
token_file = {token}
"""


@dataclass
class Installer:
    """One installation on one node."""

    connection: SshConnection
    row: BeehiveRow
    report: Report
    python: str = ""
    """The path of the Python that runs it from now on; without it one is found."""
    _sent: str = ""

    def _narrate(self, action: str, human: str) -> None:
        narrate(self.report, self.row.node_name, action, human)

    async def install(self, token: str, *, sources: str | None = None) -> str:
        """Install rbee and return its version: build it there in the folder `sources`, or without that copy our file.

        Raises InstallFailedError or SshFailedError; cut at any point, the previous version goes on working.
        """
        try:
            return await self._install(token, sources)
        except SshFailedError as exc:
            if not self.connection.is_open:
                exc.message = f"the installation on {self.row.node_name} was cut{self._sent}: {exc.message}"
                exc.hint = "what was installed there before goes on working; the same command begins anew"
            raise

    async def _install(self, token: str, sources: str | None) -> str:
        name, install = self.row.node_name, self.row.install_path
        paths = script.NodePaths(install)
        python = self._choose_python(
            await probe(self.connection, install=install, python=self.python), from_source=sources is not None
        )
        prepared = await self._prepare(python)
        if (words := await self.connection.sftp_obstacle(f"{install}/bin")) is not None:
            self._narrate("sftp", f"SFTP brings no files to {name} ({words}); they go through the shell")
        part = f"{install}/bin/.rbee.{secrets.token_hex(8)}.part"
        if sources is not None:
            await self._build(sources, python, part)
            version = await self._adopt(python, part, "", "")
        else:
            version = await self._copy(prepared, python, part)
        self._narrate("configure", f"Writing the swarm's token and settings on {name}")
        await self.connection.write(token.encode() + b"\n", paths.token, mode=0o600)
        if "config" not in prepared:
            text = CONFIG.format(state=config.quoted(paths.state), token=config.quoted(paths.token))
            await self.connection.write(text.encode(), paths.config, mode=0o600)
        return version

    def _choose_python(self, machine: Machine, *, from_source: bool) -> str:
        """Return the Python that will run rbee. Raises InstallFailedError where none can."""
        name, python = self.row.node_name, machine.python()
        if self.python and not machine.pythons:
            raise InstallFailedError(f"there is no Python on {name} at the path that was named", hint=_HINT, node=name)
        if (obstacles := machine.obstacles(from_source=from_source)) or python is None:
            can_build = not from_source and not machine.obstacles(from_source=True)
            hint = f"`rbee setup install --node {name} --from-source` builds one that can" if can_build else None
            if hint is None and python is None:
                hint = f"if there is one elsewhere: {_HINT}"
            raise InstallFailedError(f"rbee.pyz cannot run on {name}: {'; '.join(obstacles)}", hint=hint, node=name)
        return python.path

    async def _prepare(self, python: str) -> script.Facts:
        parameters = {"install": self.row.install_path, "python": python}
        return await script.run(self.connection, "prepare_install", parameters)

    async def _copy(self, prepared: script.Facts, python: str, part: str) -> str:
        name = self.row.node_name

        def report(line: str) -> None:
            trio.from_thread.run_sync(self._narrate, "build", line)

        # In a checkout it is built first, which may take minutes.
        builder = zipapp.Builder()
        try:
            file = await trio.to_thread.run_sync(zipapp.locate, report, builder, abandon_on_cancel=True)
        except trio.Cancelled:
            builder.give_up()
            raise
        size, digest = await trio.to_thread.run_sync(_measure, file)
        if prepared.get("hash") == [digest]:
            self._narrate("copy", f"rbee {__version__} is on {name} already; nothing is sent")
            return await self._adopt(python, "", "", __version__)
        if (found := zipapp.version_of(file)) != __version__:
            raise InstallFailedError(
                f"this queen is rbee {__version__}, and the file that it was started from has become rbee {found}",
                hint="`rbee down` ends the queen; the next command starts the new one",
                node=name,
            )
        self._check_room(prepared, UNPACKED_FACTOR * size)
        self._narrate("copy", f"Copying rbee {__version__} ({size / 1e6:.1f} MB) to {name}")
        started = time.monotonic()
        shown = started

        def on_progress(sent: int) -> None:
            nonlocal shown
            self._sent = f" with {sent / 1e6:.1f} of {size / 1e6:.1f} MB sent"
            now = time.monotonic()
            if now - shown >= PROGRESS_SECONDS or sent == size:
                shown = now
                speed = sent / 1e6 / max(now - started, 1e-9)
                self.report(Progress(stage="copying", bytes_downloaded=sent, bytes_total=size, speed_mbps=speed))

        try:
            await self.connection.upload(file, part, mode=0o755, on_progress=on_progress)
        except SshFailedError:
            if self.connection.is_open:  # SFTP has no word for a full disk
                self._check_room(await self._prepare(python), size)
            raise
        self._sent = ""
        return await self._adopt(python, part, digest, __version__)

    def _check_room(self, prepared: script.Facts, size: int) -> None:
        """Raise InsufficientDiskError where fewer bytes than `size` are free, as far as is known."""
        name, free = self.row.node_name, prepared.get("free", [""])[0]
        if not free.isdecimal() or int(free) * 1024 >= size:
            return
        required, available = size // 1_000_000, int(free) * 1024 // 1_000_000
        raise InsufficientDiskError(
            f"rbee takes {required} MB on {name}, and {available} MB are free there",
            hint=f"free some space, or name another folder: `rbee setup update-node --name {name} --install-path DIR`",
            required=required,
            available=available,
            node=name,
        )

    async def _build(self, sources: str, python: str, part: str) -> None:
        row = self.row
        if row.git_repo_url is None:
            raise InstallFailedError(
                f"node {row.node_name} has no repository to build from",
                hint=f"`rbee setup update-node --name {row.node_name} --git-repo URL` names one",
                node=row.node_name,
            )
        self._narrate("build", f"Building branch {row.git_branch} on {row.node_name}; the first time takes minutes")
        parameters = {
            "sources": sources,
            "repository": row.git_repo_url,
            "branch": row.git_branch,
            "python": python,
            "part": part,
        }
        last_lines: list[str] = []

        def on_fact(key: str, value: str) -> None:
            if key == "line" and value.strip():
                line = public(value)
                last_lines[:] = [*last_lines[-19:], line]
                self._narrate("build", line)

        facts = await script.run(self.connection, "build_source", parameters, on_fact)
        if "lacks" in facts:
            raise InstallFailedError(f"{row.node_name} has no {facts['lacks'][0]}", node=row.node_name)
        if facts.get("built") != ["0"]:
            reason = last_lines[-1] if last_lines else "no reason was given"
            raise InstallFailedError(
                f"rbee could not be built on {row.node_name}: {reason}", node=row.node_name, last_lines=last_lines
            )

    async def _adopt(self, python: str, part: str, digest: str, version: str) -> str:
        name = self.row.node_name
        self._narrate("try", f"Checking the program on {name} and putting it in its place")
        facts = await script.run(
            self.connection,
            "adopt_program",
            {
                "install": self.row.install_path,
                "python": python,
                "kept": python if self.python else "",
                "part": part,
                "hash": digest,
                "version": version,
            },
        )
        if "gone" in facts:
            raise InstallFailedError(
                f"the copy on {name} was taken away before it was in its place",
                hint="another installation may run there at the same time; try again",
                node=name,
            )
        if "damaged" in facts:
            raise InstallFailedError(f"the copy on {name} is not what was sent", hint="try again", node=name)
        if "broken" in facts:
            raise InstallFailedError(f"the program does not start on {name}: {public(facts['broken'][0])}", node=name)
        return facts["installed"][0].removeprefix("rbee ")

    async def roll_back(self) -> str:
        """Take the previous version back, and return it. Raises InstallFailedError where there is none."""
        name = self.row.node_name
        facts = await script.run(self.connection, "roll_back", {"install": self.row.install_path})
        if "none" in facts:
            raise InstallFailedError(f"there is no previous version on {name}", node=name)
        if "broken" in facts:
            raise InstallFailedError(
                f"the previous version does not start on {name}: {public(facts['broken'][0])}", node=name
            )
        return facts["installed"][0].removeprefix("rbee ")


def _measure(file: Path) -> tuple[int, str]:
    with file.open("rb") as source:
        return file.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()
