"""One simulation: a seed's machine, faults and requests, from the first request until nothing is left."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.config import Timeouts
from rbee.errors import AlreadyRunningError, RbeeError
from tests.simulation import clock, queen
from tests.simulation.clients import Request
from tests.simulation.hive import HIVE_URL, HiveProcess
from tests.simulation.network import Network
from tests.simulation.queen import QueenProcess
from tests.simulation.rules import ENDING_SLACK, Rules
from tests.simulation.site import Site
from tests.simulation.trace import Trace
from tests.simulation.worker import ORPHAN_SECONDS, Worker
from tests.simulation.world import Faults, Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.world import Process

SETTLE_SECONDS: Final = ORPHAN_SECONDS + 60
"""After the last request: for orphans, and for what had begun to end."""
WHOLE_SECONDS: Final = 10_000.0


class Story:
    """What happens under one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace = Trace()
        self.rules = Rules()

    def run(self) -> None:
        """Play it; raises what went wrong."""
        try:
            with _logged(self.trace), queen.watched():
                clock.run(self.seed, self._main, self.rules)
        finally:
            # The first thing that did not hold; what came of breaking off is of no interest.
            if self.rules.violation is not None:
                raise self.rules.violation

    async def _main(self) -> None:
        self._world = world = World(self.seed, self.trace, self.rules)
        self._chance = chance = world.chance("story")
        self._network = Network(world)
        self._limits = Timeouts(idle=chance.choice((20, 60, 300)), loading=chance.choice((60, 300)))
        self._site = Site(world, self._network, self._limits)
        self._max_waiting = chance.choice((0, 2, 100))
        self._keeping = trio.CancelScope()
        self.rules.watch(world, self._site)
        self.trace.add("world", f"faults: {world.faults}")
        self.trace.add("world", f"{world.slots} slots a worker, {self._limits}, at most {self._max_waiting} in line")
        with self.rules.scope, trio.move_on_after(WHOLE_SECONDS) as patience:
            async with trio.open_nursery() as world.nursery:
                await self._run()
                world.nursery.cancel_scope.cancel()
        self._site.registry.close()
        if patience.cancelled_caught:
            raise Violation(f"it did not end within {WHOLE_SECONDS:g} s")

    async def _run(self) -> None:
        """Requests come and things go wrong; then everything ends at once, or first becomes good again."""
        world, chance = self._world, self._chance
        is_stopped_in_storm = chance.random() < 0.3
        world.nursery.start_soon(self._keep_a_queen)
        async with trio.open_nursery() as clients:
            await self._storm(clients)
            if is_stopped_in_storm:
                await self._stop()
            world.calm()
        if not is_stopped_in_storm:
            if world.drawn == Faults():
                self.rules.check_outcomes()
            await self._recover()
            await self._stop()
        await trio.sleep(SETTLE_SECONDS)
        # However the last hive ended, the next one finds nothing to do.
        await self._ensure_hive()
        await trio.sleep(1)
        self.rules.check_empty()

    async def _ensure_hive(self) -> None:
        """See to it that a hive answers; one that just starts or ends, on the queen's account, is waited for."""
        while True:
            with suppress(AlreadyRunningError):
                await self._site.ensure(lambda _: None)
                return
            await trio.sleep(1)

    async def _storm(self, clients: trio.Nursery) -> None:
        world, chance = self._world, self._chance
        async with trio.open_nursery() as killers:
            if every := world.faults.hive_killed_every:
                killers.start_soon(self._kill, lambda: self._site.hive, every)
            if every := world.faults.queen_killed_every:
                killers.start_soon(self._kill, lambda: world.queen, every)
            if every := world.faults.hive_stopped_every:
                killers.start_soon(self._stop_hives, every)
            if every := world.faults.user_ends_every:
                killers.start_soon(self._end_workers, every)
            pace = chance.choice((1, 5, 20))
            for number in range(1, chance.randint(10, 40)):
                clients.start_soon(Request(world, self._network, number, self._limits).run)
                await trio.sleep(chance.expovariate(1 / pace))
            killers.cancel_scope.cancel()

    async def _stop_hives(self, every: float) -> None:
        """A user ends the hive now and then; the queen goes on, and starts another when there is a reason."""
        while True:
            await trio.sleep(self._chance.expovariate(1 / every))
            if (hive := self._site.hive) is not None and hive.is_running:
                self.trace.add("user", f"ends {hive.name}")
                hive.stop()

    async def _end_workers(self, every: float) -> None:
        """A user ends a worker of his now and then, whatever it does."""
        while True:
            await trio.sleep(self._chance.expovariate(1 / every))
            workers = [found for found in self._world.processes.values() if isinstance(found, Worker)]
            if workers:
                chosen = self._chance.choice(workers)
                self.trace.add("user", f"ends {chosen.name}")
                with suppress(RbeeError):
                    await self._network.call(
                        HIVE_URL, "a worker's end", partial(HiveProcess.end_worker, worker_id=chosen.id)
                    )

    async def _keep_a_queen(self) -> None:
        """A user of the node starts a queen if there is none."""
        number = 0
        with self._keeping:
            while True:
                number += 1
                self._world.queen = queen = QueenProcess(
                    self._world, self._network, self._site, self._max_waiting, number
                )
                self._world.nursery.start_soon(queen.run)
                await queen.ended.wait()
                await trio.sleep(self._chance.uniform(0, 5))

    async def _kill(self, find: Callable[[], Process | None], every: float) -> None:
        """Kill a daemon from time to time, in the middle of whatever comes to pass then."""
        chance = self._chance
        while True:
            await trio.sleep(chance.expovariate(1 / every))
            struck = trio.Event()
            self.trace.call_after(chance.choice((0, 1, 2, 3, 5, 8, 13)), struck.set)
            await struck.wait()
            if (victim := find()) is not None:
                victim.kill()

    async def _recover(self) -> None:
        """Nothing goes wrong any more: everything is put in order, ends when it is idle, and can start again."""
        await self._ensure_hive()
        await trio.sleep(SETTLE_SECONDS)
        self.rules.check_quiet()
        await trio.sleep(self._limits.idle + SETTLE_SECONDS)
        self.rules.check_empty()
        outcome = await Request(self._world, self._network, 1000, self._limits, is_last=True).run()
        if not outcome.endswith("tokens"):
            raise Violation(f"all is well again, and yet a request ends so: {outcome}")

    async def _stop(self) -> None:
        """End the queen and the hive, as a queen that is told to end does."""
        hive = self._site.hive
        self._keeping.cancel()
        queen = self._world.queen if self._world.queen is not None and self._world.queen.is_running else None
        if queen is not None:
            queen.stop()
        if hive is not None and hive.is_running:
            await self._end(hive)
        if queen is not None:
            queen.finish()

    async def _end(self, hive: HiveProcess) -> None:
        chance = self._chance
        limit = self._limits.drain + self._limits.unload + ENDING_SLACK
        self.trace.add("story", f"{hive.name} is told to end")
        hive.stop()
        if chance.random() < 0.3:
            await trio.sleep(chance.uniform(0, 10))
            self.trace.add("story", f"{hive.name} is told to hurry")
            hive.force()
            limit = self._limits.unload / 2 + ENDING_SLACK
        with trio.move_on_after(limit):
            await hive.ended.wait()
        if hive.is_running:
            raise Violation(f"{hive.name} has not ended within {limit:g} s")


@contextmanager
def _logged(trace: Trace) -> Iterator[None]:
    """Have the trace take in what the product logs."""
    logger = logging.getLogger("rbee")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(trace)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(trace)
        logger.setLevel(level)
        logger.propagate = propagates
