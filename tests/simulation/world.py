"""What the simulated processes share: chance, faults, memory, addresses, and the list of what runs."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.adapters.daemon.process import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.rules import Rules
    from tests.simulation.trace import Trace

PIDS: Final = range(100, 160)
"""So few that they are used again within one simulation."""
GB: Final = 1_000_000_000
NEEDED: Final = {"small": 2 * GB, "medium": 3 * GB, "other": 4 * GB, "large": 5 * GB}
"""The models there are, and the memory they take."""
BOOT: Final = "00000000-boot"


class Violation(AssertionError):
    """Something that must hold in every run does not."""


@dataclass
class Faults:
    """How often what goes wrong. Shares are of 1; `_every` is the mean of the seconds between two."""

    dies_at_start: float = 0
    slow_start: float = 0
    launch_fails: float = 0
    load_fails: float = 0
    load_hangs: float = 0
    slow_load: float = 0
    refuses_shutdown: float = 0
    ignores_sigterm: float = 0
    slow_exit: float = 0
    holds_pipe: float = 0
    call_lost: float = 0
    slow_call: float = 0
    registry_fails: float = 0
    crash_every: float = 0
    told_to_end_every: float = 0
    user_ends_every: float = 0
    silent_every: float = 0
    deaf_every: float = 0
    cut_every: float = 0
    stalled_every: float = 0
    hive_deaf_every: float = 0
    hive_stopped_every: float = 0
    hive_killed_every: float = 0
    queen_killed_every: float = 0

    @classmethod
    def draw(cls, source: Callable[[str], random.Random]) -> Faults:
        """Return what goes wrong in one simulation: nothing, or a few of these, or many at once.

        Each has a chance of its own, so that a new one leaves the others of a kept seed as they were.
        """
        found, most = cls(), source("faults").choice((0, 0.1, 0.2, 0.3, 0.5))
        for field in fields(cls):
            chance = source(field.name)
            is_kill = most > 0 and field.name.endswith("_killed_every")
            if chance.random() < (0.4 if is_kill else most):
                choices = (10.0, 40.0, 200.0) if field.name.endswith("_every") else (0.02, 0.1, 0.3)
                setattr(found, field.name, chance.choice(choices))
        return found

    def __str__(self) -> str:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {value:g}" for name, value in named if value) or "none"

    @property
    def reach_the_network(self) -> bool:
        """Whether news may be late or lost."""
        return bool(
            self.call_lost
            or self.slow_call
            or self.deaf_every
            or self.hive_deaf_every
            or self.cut_every
            or self.stalled_every
        )


class Process:
    """A simulated process: tasks in a nursery of its own, which a kill ends at whatever they wait for."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.identity = world.identify(self)
        self.memory: dict[tuple[str, int], int] = {}
        self.url = ""
        self.deaf_until = -1.0
        self.how: str | None = None
        self.ended_at = 0.0
        self.ended = trio.Event()
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.identity.pid}>"

    @property
    def is_running(self) -> bool:
        return self.how is None

    @property
    def is_listening(self) -> bool:
        return self.is_running and self.world.listeners.get(self.url) is self

    def listen(self, url: str) -> None:
        """Answer at `url`, from now until the end."""
        assert url not in self.world.listeners
        self.url = url
        self.world.listeners[url] = self

    def stop_listening(self) -> None:
        if self.world.listeners.get(self.url) is self:
            del self.world.listeners[self.url]

    async def main(self) -> str:
        """Do what this process does; returns how it ended."""
        raise NotImplementedError

    async def run(self) -> None:
        """Run until `main` returns or the process is killed."""
        how = "SIGKILL"
        try:
            with self._scope:
                async with trio.open_nursery() as self.nursery:
                    how = await self.main()
                    self.end(how)
        finally:
            self.end(how)

    def end(self, how: str) -> None:
        """End it at once: nothing of it is seen or held from here on."""
        if self.how is not None:
            return
        self.how, self.ended_at = how, trio.current_time()
        self.memory.clear()
        self.stop_listening()
        del self.world.processes[self.identity.pid]
        self.world.trace.add(self.name, f"has ended: {how}")
        self._scope.cancel()
        self.ended.set()

    def kill(self) -> None:
        """SIGKILL has come."""
        self.end("SIGKILL")

    async def grow_deaf(self, chance: random.Random, every: float) -> None:
        """From time to time answer nobody for a while, as under SIGSTOP; what runs inside goes on."""
        while self.world.faults == self.world.drawn:
            await trio.sleep(chance.expovariate(1 / every))
            if self.world.faults == self.world.drawn:
                self.deaf_until = max(self.deaf_until, trio.current_time() + chance.choice((3, 20, 60, 200)))
                self.world.trace.add(self.name, f"is deaf until {self.deaf_until:.3f}")

    async def receive(self) -> None:
        """Return once the process is not deaf."""
        while trio.current_time() < self.deaf_until:
            with trio.move_on_at(self.deaf_until):
                await self.world.calmed.wait()


class World:
    """One simulated machine and all that runs on it."""

    nursery: trio.Nursery

    def __init__(self, seed: int, trace: Trace, rules: Rules) -> None:
        self._seed = seed
        self.trace = trace
        self.rules = rules
        self.faults = self.drawn = Faults.draw(self.chance)
        chance = self.chance("machine")
        self.slots = chance.randint(1, 4)
        room = chance.choice((1, 2, 4))
        self.total = {("ram", 0): 5 * room * GB, ("vram", 0): 6 * room * GB, ("vram", 1): 4 * room * GB}
        self.has_conversations = self.chance("conversations").random() < 0.5
        self.processes: dict[int, Process] = {}
        self.listeners: dict[str, Process] = {}
        self.queen: Any = None
        self.calmed = trio.Event()
        self._pid = PIDS[0]
        self._started = 0

    def chance(self, name: str) -> random.Random:
        """Return a source of chance for one part, which draws by others do not disturb."""
        return random.Random(f"{self._seed}/{name}")

    def identify(self, process: Process) -> Identity:
        """Give a new process its pid."""
        while self._pid in self.processes:
            self._pid = PIDS[(self._pid - PIDS[0] + 1) % len(PIDS)]
        self.processes[self._pid] = process
        self._started += 1
        identity = Identity(self._pid, self._started, BOOT)
        self._pid = PIDS[(self._pid - PIDS[0] + 1) % len(PIDS)]
        return identity

    def find(self, identity: Identity) -> Process | None:
        """Return exactly this process, if it runs."""
        found = self.processes.get(identity.pid)
        return found if found is not None and found.identity == identity else None

    def used(self, resource: str, device: int) -> int:
        return sum(process.memory.get((resource, device), 0) for process in self.processes.values())

    def free(self, resource: str, device: int) -> int:
        return self.total[resource, device] - self.used(resource, device)

    def calm(self) -> None:
        """From now on nothing goes wrong that has not begun to."""
        self.faults = Faults()
        self.calmed.set()
        for process in self.processes.values():
            process.deaf_until = -1.0
        self.trace.add("world", "from here on nothing new goes wrong")
