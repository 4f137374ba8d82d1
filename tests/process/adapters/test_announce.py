"""How a parent hears from a child that starts, and what the child may do wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.daemon import announce, process
from rbee.errors import PortInUseError, SpawnFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.wire.common import Narration

    Start = Callable[[str], Awaitable[trio.Process]]

ROOT = __file__.partition("/tests/")[0]
HEAD = f"""
import os, sys, time
sys.path.insert(0, {ROOT!r})
from rbee.adapters.daemon.announce import Announcer, Ready
from rbee.errors import PortInUseError
from rbee.wire.common import Narration
announcer = Announcer(True)
ready = Ready("http://127.0.0.1:1", os.getpid(), "1")
def note(human):
    announcer.report(Narration(actor="rbee-hive", action="a", target="t", human=human))
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    async def run(script: str) -> trio.Process:
        return await process.start([sys.executable, "-c", HEAD + script], log=tmp_path / "log")

    return run


async def listen(child: trio.Process) -> tuple[announce.Ready, list[str]]:
    told: list[Narration] = []
    ready = await announce.listen(child, told.append)
    return ready, [narration.human for narration in told]


async def test_a_child_tells_and_is_ready(start: Start) -> None:
    child = await start("note('one'); note('two'); announcer.ready(ready)")
    assert await listen(child) == (announce.Ready("http://127.0.0.1:1", child.pid, "1"), ["one", "two"])
    assert await child.wait() == 0


async def test_garbage_before_is_passed_over(start: Start) -> None:
    child = await start(
        "os.write(1, b'hello\\n\\n\\xff\\xfe\\n{\\n[]\\nnull\\n' + b'[' * 100000 + b'\\n{\"narration\":1}\\n');"
        "announcer.ready(ready)"
    )
    assert (await listen(child))[1] == []
    await child.wait()


async def test_a_line_may_come_in_pieces(start: Start) -> None:
    child = await start(
        'line = b\'{"ready":{"url":"http://x","pid":1,"version":"1"}}\\n\'\n'
        "for byte in line:\n    os.write(1, bytes([byte]))\n"
    )
    assert (await listen(child))[0].url == "http://x"
    await child.wait()


async def test_an_error_is_raised_as_what_it_is(start: Start) -> None:
    child = await start("note('one'); announcer.failed(PortInUseError('taken', hint='stop it', port=1)); sys.exit(1)")
    with pytest.raises(PortInUseError, match="taken") as caught:
        await listen(child)
    assert (caught.value.hint, caught.value.details) == ("stop it", {"port": 1})
    assert await child.wait() == 1


async def test_an_error_that_is_none_is_still_a_failure(start: Start) -> None:
    child = await start('os.write(1, b\'{"error":{"code":7}}\\n\')')
    with pytest.raises(SpawnFailedError):
        await listen(child)
    await child.wait()


@pytest.mark.parametrize("script", ["", "sys.exit(3)", "os.kill(os.getpid(), 9)", "note('x'); os.write(1, b'{\"rea')"])
async def test_a_silent_end_is_told_apart(start: Start, script: str) -> None:
    child = await start(script)
    with pytest.raises(announce.SilentEndError):
        await listen(child)
    await child.wait()


async def test_one_that_closes_its_stdout_and_goes_on_is_not_waited_for(start: Start) -> None:
    child = await start("os.close(1); time.sleep(600)")
    with pytest.raises(announce.SilentEndError):
        await listen(child)
    child.kill()
    await child.wait()


async def test_a_line_without_end_is_given_up(start: Start) -> None:
    child = await start("\nwhile True: os.write(1, b'x' * 65536)")
    with pytest.raises(announce.SilentEndError):
        await listen(child)
    await child.wait()


async def test_listening_can_be_cancelled(start: Start) -> None:
    child = await start("time.sleep(600)")
    with trio.move_on_after(0.1) as scope:
        await listen(child)
    assert scope.cancelled_caught
    child.kill()
    await child.wait()


async def test_after_the_last_word_stdout_leads_nowhere(start: Start) -> None:
    child = await start(
        "announcer.ready(ready); note('late'); announcer.ready(ready); print('printed', flush=True);"
        "file = os.open('/dev/zero', os.O_RDONLY); sys.exit(0 if file > 2 else 9)"
    )
    assert (await listen(child))[1] == []
    assert await child.wait() == 0


async def test_a_child_whose_parent_has_gone_goes_on(start: Start) -> None:
    child = await start("\nfor _ in range(1000): note('x' * 1000)\nannouncer.ready(ready); sys.exit(7)")
    assert child.stdout is not None
    await child.stdout.aclose()
    assert await child.wait() == 7


async def test_where_nobody_listens_nothing_is_said(start: Start) -> None:
    child = await start("announcer = Announcer(False); note('x'); announcer.ready(ready); print('still mine')")
    output = b""
    assert child.stdout is not None
    async with child.stdout as stdout:
        while chunk := await stdout.receive_some():
            output += chunk
    assert (await child.wait(), output) == (0, b"still mine\n")
