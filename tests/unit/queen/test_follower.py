"""How the queen learns whether the hive that it follows is still there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio
import trio.testing

from rbee.errors import ConnectionTimeoutError
from rbee.queen.hives.follower import ASIDE_SECONDS, FRESH_SECONDS, VALID_SECONDS, HiveFollower
from rbee.wire.hive import WorkerList

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rbee.queen.hives.link import HiveLink
    from rbee.wire.hive import HiveEvent


class Hive:
    """Both the link and the client of a hive, which says that it is there unless `is_gone`."""

    def __init__(self) -> None:
        self.is_gone = False
        self.is_mute = False
        self.is_cut = trio.Event()
        self.asked = 0

    async def find(self) -> str | None:
        await trio.lowlevel.checkpoint()
        return None if self.is_cut.is_set() else "http://127.0.0.1:9200"

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Hive]:
        yield self

    async def follow(self, heard: Callable[[HiveEvent], None]) -> None:
        heard(WorkerList(workers=[]))
        await self.is_cut.wait()

    async def health(self, *, patient: bool) -> None:
        assert not patient
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.is_mute:
            await trio.sleep_forever()
        if self.is_gone:
            raise ConnectionTimeoutError("127.0.0.1:9200 does not answer")


async def followed(hive: Hive, nursery: trio.Nursery) -> HiveFollower:
    """Return what follows the hive, once it does."""
    follower = HiveFollower(cast("HiveLink", hive))
    nursery.start_soon(follower.run, lambda _: None)
    assert await follower.is_followed()
    return follower


async def cut_after(hive: Hive, seconds: float) -> None:
    await trio.sleep(seconds)
    hive.is_cut.set()


async def test_a_hive_that_is_followed_is_asked_whether_it_is_there_now_and_then(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hive = Hive()
    follower = HiveFollower(cast("HiveLink", hive))
    assert not await follower.answers(60)
    nursery.start_soon(follower.run, lambda _: None)
    assert await follower.is_followed()
    for _ in range(3):
        assert await follower.answers(60)
    assert hive.asked == 1
    await trio.sleep(VALID_SECONDS)
    hive.is_gone = True
    for asked in (2, 3):
        assert not await follower.answers(60)
        assert hive.asked == asked, "that it did not answer is no answer for later"


async def test_an_answer_that_is_not_fresh_is_good_while_the_hive_is_asked_anew(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hive = Hive()
    follower = await followed(hive, nursery)
    assert await follower.answers(60)
    for asked in (2, 3):
        await trio.sleep(FRESH_SECONDS)
        assert await follower.answers(60)
        await trio.testing.wait_all_tasks_blocked()
        assert hive.asked == asked - 1, "who wants to know goes first"
        await trio.sleep(ASIDE_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert hive.asked == asked
    hive.is_gone = True
    await trio.sleep(FRESH_SECONDS)
    assert await follower.answers(60), "nobody has waited for the answer"
    await trio.sleep(ASIDE_SECONDS)
    await trio.testing.wait_all_tasks_blocked()
    assert not await follower.answers(60), "it did not answer meanwhile"


async def test_callers_share_one_question(nursery: trio.Nursery) -> None:
    hive = Hive()
    follower = await followed(hive, nursery)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await follower.answers(60))

    async with trio.open_nursery() as callers:
        for _ in range(3):
            callers.start_soon(ask)
    assert (answers, hive.asked) == ([True] * 3, 1)


async def test_a_question_ends_with_the_stream(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    hive = Hive()
    hive.is_mute = True
    follower = await followed(hive, nursery)
    nursery.start_soon(cut_after, hive, 0.1)
    assert not await follower.answers(60)
    assert trio.current_time() < 1


async def test_a_hive_whose_stream_was_lost_is_not_asked(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hive = Hive()
    follower = await followed(hive, nursery)
    hive.is_cut.set()
    await trio.testing.wait_all_tasks_blocked()
    assert not await follower.answers(60)
    assert hive.asked == 0
