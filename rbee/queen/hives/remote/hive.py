"""The hive of a registered node, as the rest of the queen uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee import __version__
from rbee.errors import PortInUseError, RbeeError, SshFailedError
from rbee.narrower_errors import HostKeyError, KeyRefusedError
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote import attempts, end, launch
from rbee.queen.hives.remote.install import Installer
from rbee.queen.hives.remote.reach import Reach
from rbee.queen.registry.identity import OTHERS
from rbee.wire.registry import Success

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.queen.hives.link import LeftRunningError
    from rbee.queen.hives.mirror import Devices
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.queen.registry.record import NodeRecord
    from rbee.wire.progress import Report
    from rbee.wire.registry import InstallRequest


class RemoteHive(Reach):
    """A HiveLink to another machine, which is the way there and these; it also brings rbee there."""

    def __init__(self, record: NodeRecord, settings: Settings, token: str, identities: HiveIdentities) -> None:
        super().__init__(record, settings, token, identities)
        # Two locks, and no task that owns the hive: what they guard is a script over SSH for which the caller waits
        # anyway, so a queue of messages and answers would say the same in more words.
        self._changing = trio.Lock()
        """Held while the hive is started or ended: nobody starts one that another ends."""
        self._installing = trio.Lock()
        """Held while rbee is brought there, which takes minutes; the hive can be started and ended meanwhile."""

    async def devices(self) -> Devices:
        """Return what was found when the node was registered; how much memory is free is not known."""
        await trio.lowlevel.checkpoint()
        row = self.record.row
        return {name: [None] * row.devices.get(name, 1) for name in row.backends}

    async def ensure(self, report: Report) -> str:
        """Return the URL of the hive, started over SSH if need be; raises why it could not be."""
        try:
            if (found := await self.find()) is not None:
                return found
        except OTHERS as exc:
            # The node's own may listen elsewhere, or be another one by now: only SSH leads to that very machine.
            try:
                return await self._launch(report)
            except HostKeyError:
                raise
            except (PortInUseError, SshFailedError) as second:
                raise exc from second
        return await self._launch(report)

    async def _launch(self, report: Report) -> str:
        """Start the hive over SSH, or find it there, and return the URL at which the queen reaches it."""
        async with self._changing:
            await launch.launch(self, report)
        url = await attempts.choose_way(self, report)
        name = self.record.name
        human = f"The hive on {name} answers at {self.address}"
        if self.version != __version__:
            human += f"; it is rbee {self.version}, and this queen {__version__}: `rbee setup install --node {name}`"
        narrate(report, name, "hive_ready", human)
        return url

    async def end(self, force: trio.Event) -> LeftRunningError | None:
        """End the hive if a queen started it; bounded, also where the node does not answer."""
        async with self._changing:
            return await end.end(self, force)

    async def _is_refused(self) -> bool:
        """Whether the hive that answers has another token than we."""
        with trio.move_on_after(self.settings.timeouts.connect):
            try:
                await self.find()
            except KeyRefusedError:
                return True
            except RbeeError:
                return False
        return False

    async def install(self, asked: InstallRequest, report: Report) -> Success:
        """Bring rbee to the node, or take the previous version back; a hive of another version is ended then."""
        row, name, limits = self.record.row, self.record.name, self.settings.timeouts
        sources = self.settings.remote.git_repo_dir or f"{row.install_path}/src"
        if self._installing.locked():
            narrate(report, name, "wait", f"Waiting for another installation on {name} to end")
        async with self._installing, self.dial() as connection:
            installer = Installer(connection, row, report, asked.python or "")
            if asked.rollback:
                version = await installer.roll_back()
            else:
                version = await installer.install(self._token, sources=sources if asked.from_source else None)
            self.vouch()
            async with self._changing:
                seconds = limits.drain + limits.cascade
                # One that was started before the token came would refuse us for as long as it runs.
                other, kept = "which was of another version", version
                if await self._is_refused():
                    other, kept = "which had another token", ""
                outcome = await end.stop(connection, row, seconds=seconds, unless_version=kept)
        if outcome in ("ended", "killed"):
            narrate(report, name, "stop_hive", f"Ended the hive on {name}, {other}")
        elif outcome == "foreign":
            human = f"The hive on {name}, {other}, was started by a user: it has to be ended there"
            narrate(report, name, "stop_hive", human)
        return Success(message=f"rbee {version} is installed on {name}", node_name=name)
