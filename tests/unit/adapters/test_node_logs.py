"""The logs of a node are read together while others write, rotate and remove them."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.adapters.logs import node_logs, reader
from rbee.adapters.logs.node_logs import NodeLogs
from rbee.adapters.logs.rotating_file import LogFile
from rbee.wire.logs import LogLine, LogQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def open_logs(tmp_path: Path) -> Iterator[Callable[..., NodeLogs]]:
    """Give a function that reads the logs of the test's folder; afterwards no file may be left open."""
    opened: list[NodeLogs] = []

    def begin(only: str | None = None) -> NodeLogs:
        opened.append(NodeLogs(tmp_path, only))
        return opened[-1]

    yield begin
    for logs in opened:
        logs.close()
    assert open_files(tmp_path) == []


def open_files(folder: Path) -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(str(folder))]


def said(lines: list[LogLine]) -> list[str]:
    return [f"{line.source}: {line.message}" for line in lines]


def append(path: Path, *messages: str, second: int | None = None) -> None:
    with path.open("a") as file:
        for message in messages:
            line = (
                message
                if second is None
                else json.dumps({"time": f"2026-01-01T00:00:{second:02d}Z"} | {"message": message})
            )
            file.write(f"{line}\n")


OpenLogs = "Callable[..., NodeLogs]"


def test_lines_stand_in_the_order_in_which_they_were_written(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "worker-a.log", "native first")
    append(tmp_path / "worker-a.log", "2", second=2)
    append(tmp_path / "worker-a.log", "native after 2")
    append(tmp_path / "worker-a.log", "5", second=5)
    for second in (1, 3, 6):
        append(tmp_path / "hive.log", str(second), second=second)
    (tmp_path / "queen.log").write_text("not of the node\n")
    logs = open_logs()
    assert said(logs.last(100)) == [
        "hive: 1",
        "worker-a: native first",
        "worker-a: 2",
        "worker-a: native after 2",
        "hive: 3",
        "worker-a: 5",
        "hive: 6",
    ]
    assert logs.more() == []


def test_only_the_newest_lines_are_given(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "hive.log.1", *(f"old {number}" for number in range(10)))
    append(tmp_path / "hive.log", *(f"new {number}" for number in range(3)))
    assert said(open_logs().last(5)) == ["hive: old 8", "hive: old 9", "hive: new 0", "hive: new 1", "hive: new 2"]
    assert open_logs().last(0) == []
    assert len(open_logs().last(100)) == 13


def test_the_end_of_a_large_log_is_found(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "hive.log", *(f"line {number}" for number in range(400_000)))
    assert (tmp_path / "hive.log").stat().st_size > 4 * reader.MOST
    assert said(open_logs().last(2)) == ["hive: line 399998", "hive: line 399999"]
    many = open_logs().last(10**6)
    assert said(many)[-1] == "hive: line 399999"
    assert 10_000 < len(many) < 400_000
    assert [line.message for line in many] == [f"line {number}" for number in range(400_000)][-len(many) :]


def test_what_is_written_later_comes_later(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "hive.log", "before")
    logs = open_logs()
    assert said(logs.last(10)) == ["hive: before"]
    with (tmp_path / "hive.log").open("a") as file:
        file.write("half")
        file.flush()
        assert logs.more() == []
        file.write(" a line\n")
    assert said(logs.more()) == ["hive: half a line"]


def test_a_line_without_an_end_is_given_who_reads_no_more(tmp_path: Path, open_logs: OpenLogs) -> None:
    (tmp_path / "worker-a.log").write_text("whole\nlast breath")
    logs = open_logs()
    assert said(logs.last(10)) == ["worker-a: whole"]
    assert said(logs.unfinished()) == ["worker-a: last breath"]


def test_a_worker_that_starts_is_read_from_its_first_line(tmp_path: Path, open_logs: OpenLogs) -> None:
    logs = open_logs()
    assert logs.last(10) == []
    append(tmp_path / "worker-a.log", "one", "two")
    assert said(logs.more()) == ["worker-a: one", "worker-a: two"]


def test_a_log_that_is_removed_is_let_go(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "worker-a.log", "one")
    append(tmp_path / "hive.log", "hive")
    logs = open_logs()
    logs.last(10)
    append(tmp_path / "worker-a.log", "two")
    (tmp_path / "worker-a.log").unlink()
    assert said(logs.more()) == ["worker-a: two"]
    assert open_files(tmp_path) == [str(tmp_path / "hive.log")]
    append(tmp_path / "worker-a.log", "another")
    assert said(logs.more()) == ["worker-a: another"]


def test_a_log_that_is_emptied_is_read_from_its_beginning(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "hive.log", "long before")
    logs = open_logs()
    logs.last(10)
    (tmp_path / "hive.log").write_text("new\n")
    assert said(logs.more()) == ["hive: new"]


def write(file: LogFile, message: str) -> None:
    file.handle(logging.LogRecord("x", logging.INFO, "", 0, "%s", (message,), None))


def test_no_line_is_lost_or_doubled_when_a_log_is_rotated(tmp_path: Path, open_logs: OpenLogs) -> None:
    file = LogFile(tmp_path / "hive.log", 1000)
    logs = open_logs()
    logs.last(10)
    found: list[str] = []
    for number in range(500):
        write(file, f"line {number}")
        if number % 7 == 0:
            found += [line.message for line in logs.more()]
    found += [line.message for line in logs.more()]
    file.close()
    assert found == [f"line {number}" for number in range(500)]


def test_lines_that_were_rotated_away_unread_are_missed(tmp_path: Path, open_logs: OpenLogs) -> None:
    file = LogFile(tmp_path / "hive.log", 1000)
    logs = open_logs()
    write(file, "first")
    assert said(logs.last(10)) == ["hive: first"]
    for number in range(500):
        write(file, f"line {number}")
    found = [line.message for line in logs.more()]
    file.close()
    (note,) = [message for message in found if "lines may be missing here" in message]
    at = found.index(note)
    assert found[:at] == [f"line {number}" for number in range(at)]
    assert found[at + 1 :] == [f"line {number}" for number in range(500)][-len(found) + at + 1 :]


def test_a_log_that_is_between_two_places_is_waited_for(tmp_path: Path, open_logs: OpenLogs) -> None:
    append(tmp_path / "hive.log", "one")
    logs = open_logs()
    logs.last(10)
    append(tmp_path / "hive.log", "two")
    (tmp_path / "hive.log").rename(tmp_path / "hive.log.1")
    assert said(logs.more()) == ["hive: two"]
    append(tmp_path / "hive.log", "three")
    assert said(logs.more()) == ["hive: three"]


def test_much_that_is_new_comes_in_parts(tmp_path: Path, open_logs: OpenLogs) -> None:
    logs = open_logs()
    append(tmp_path / "hive.log", *("x" * 1000 for _ in range(1000)))
    sizes = []
    while found := logs.more():
        sizes.append(len(found))
    assert sum(sizes) == 1000
    assert max(sizes) <= 2 * reader.READ_BYTES // 1000


def test_one_log_alone(tmp_path: Path, open_logs: OpenLogs) -> None:
    for name in ("hive", "worker-a", "worker-b"):
        append(tmp_path / f"{name}.log", name)
    logs = open_logs("worker-a.log")
    assert said(logs.last(10)) == ["worker-a: worker-a"]
    (tmp_path / "worker-a.log").unlink()
    assert logs.more() == []
    assert logs.is_over


@pytest.mark.parametrize("worker_id", ["", ".", "..", "../hive", "x/../../hive", "b", "a\0", "A" * 65, "a\n"])
def test_only_a_workers_id_names_a_log(tmp_path: Path, worker_id: str) -> None:
    append(tmp_path / "hive.log", "x")
    append(tmp_path / "worker-a.log", "x")
    assert node_logs.worker_log(tmp_path, worker_id) is None
    assert node_logs.worker_log(tmp_path, "a") == "worker-a.log"


async def test_a_reader_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    """While it waits for its reader, and while it waits for a line."""
    append(tmp_path / "hive.log", "one")

    async def stuck(_: list[LogLine]) -> None:
        reached.set()
        await trio.sleep_forever()

    async def gone(_: list[LogLine]) -> None:
        reached.set()

    for report in (stuck, gone):
        reached = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node_logs.read, tmp_path, LogQuery(follow=True), report)
            await reached.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert open_files(tmp_path) == []
