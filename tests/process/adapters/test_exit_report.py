"""How a daemon ended, as those learn it who wait for its end: from its lock file, and of exactly this daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from rbee.adapters.daemon import instance, process
from rbee.adapters.daemon.exit_report import BUG, ExitReport
from rbee.concurrency.contained import expected
from rbee.errors import CancelledError, InternalError
from tests.kit import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAEMON = """
import os, resource, sys, time
from pathlib import Path
from rbee.adapters.daemon.instance import InstanceLock
from rbee.errors import InvalidRequestError, UnloadFailedError
with InstanceLock(Path(sys.argv[1]), "hive") as lock:
    lock.publish("http://127.0.0.1:9200", "1.2.3", ephemeral=False, started_by="queen")
    print("published", flush=True)
    sys.stdin.read()
    exec(sys.argv[2])
"""
STUCK = 'raise UnloadFailedError("it is stuck", hint="look there")'
NESTED = f"try:\n    {STUCK}\nexcept Exception as exc:\n    raise ExceptionGroup('a nursery', [exc]) from None"


@contextmanager
def daemon(folder: Path, end: str) -> Iterator[tuple[subprocess.Popen[str], process.Identity]]:
    """A hive, as far as its lock goes, that ends as the code `end` does once its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(folder), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=paths.ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "published\n"
        identity = process.identify(child.pid)
        assert identity is not None
        yield child, identity
        child.kill()


def run(folder: Path, end: str) -> process.Identity:
    with daemon(folder, end) as (child, identity):
        child.communicate()
    return identity


def failure(folder: Path, identity: process.Identity) -> tuple[str, str | None] | None:
    report = instance.exit_report_of(folder, "hive", identity)
    assert report is not None
    return None if report.failure is None else (report.failure.message, report.failure.hint)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("lock.ended_cleanly = True", None),
        (STUCK, ("it is stuck", "look there")),
        (f"lock.ended_cleanly = True; {STUCK}", ("it is stuck", "look there")),
        (NESTED, ("it is stuck", "look there")),
        ('raise InvalidRequestError("no")', ("no", None)),
        (r'raise UnloadFailedError("one\ntwo\x1b[2J")', ("one\ntwo\x1b[2J", None)),
        ("1 / 0", (BUG, None)),
        ("sys.exit(3)", (BUG, None)),
        ("raise ExceptionGroup('a nursery', [ValueError(), UnloadFailedError('x')])", (BUG, None)),
    ],
)
def test_the_error_that_a_daemon_ends_with_is_reported(
    tmp_path: Path, end: str, expected: tuple[str, str | None] | None
) -> None:
    identity = run(tmp_path, end)
    assert failure(tmp_path, identity) == expected
    unclean = instance.find_uncleanly_ended(tmp_path, "hive")
    assert (unclean is None) == ("ended_cleanly" in end)


def test_what_a_daemon_could_not_end_is_reported_beside_its_error(tmp_path: Path) -> None:
    identity = run(tmp_path, f'lock.unfinished += ["one", "two"]\n{STUCK}')
    report = instance.exit_report_of(tmp_path, "hive", identity)
    assert report == ExitReport("UNLOAD_FAILED", "it is stuck", "look there", ("one", "two"))
    again = run(tmp_path, "lock.ended_cleanly = True")
    assert instance.exit_report_of(tmp_path, "hive", again) == ExitReport()


def test_one_that_was_killed_reports_nothing(tmp_path: Path) -> None:
    run(tmp_path, STUCK)
    with daemon(tmp_path, STUCK) as (child, identity):
        assert instance.exit_report_of(tmp_path, "hive", identity) is None
        child.kill()
        child.wait()
    assert instance.exit_report_of(tmp_path, "hive", identity) is None
    found = instance.find_uncleanly_ended(tmp_path, "hive")
    assert found is not None
    assert found.identity == identity


def test_a_report_is_of_the_daemon_that_wrote_it_and_of_no_other(tmp_path: Path) -> None:
    first = run(tmp_path, STUCK)
    before = process.Identity(first.pid, first.started_at - 1, first.boot_id)
    assert instance.exit_report_of(tmp_path, "hive", before) is None
    assert instance.exit_report_of(tmp_path, "queen", first) is None
    with daemon(tmp_path, "") as (_, second):
        assert instance.exit_report_of(tmp_path, "hive", first) is None
        assert instance.exit_report_of(tmp_path, "hive", second) is None


def test_one_that_was_never_there_for_others_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    first = run(tmp_path, STUCK)
    before = (tmp_path / "hive.lock").read_bytes()
    with pytest.raises(ZeroDivisionError), instance.InstanceLock(tmp_path, "hive"):
        raise ZeroDivisionError
    assert (tmp_path / "hive.lock").read_bytes() == before
    assert failure(tmp_path, first) == ("it is stuck", "look there")


@pytest.mark.parametrize("length", [100, 1000, 10_000])
def test_a_report_of_any_length_is_read_and_makes_room_for_the_next_daemon(tmp_path: Path, length: int) -> None:
    identity = run(tmp_path, f'raise UnloadFailedError("x" * {length})')
    assert failure(tmp_path, identity) == ("x" * length, None)
    before = json.loads((tmp_path / "hive.lock").read_bytes())["id"]
    with daemon(tmp_path, ""):
        found = instance.find(tmp_path, "hive")
        assert found is not None
        assert found.id == before


def test_on_a_full_disk_a_report_that_has_no_room_leaves_the_rest_readable(tmp_path: Path) -> None:
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))"
    identity = run(tmp_path, f'import signal; {limit}; lock.ended_cleanly = True; raise UnloadFailedError("x" * 600)')
    assert (tmp_path / "hive.lock").stat().st_size == 512
    assert instance.find_uncleanly_ended(tmp_path, "hive") is None
    assert instance.exit_report_of(tmp_path, "hive", identity) == ExitReport()
    with daemon(tmp_path, ""):
        assert instance.find(tmp_path, "hive") is not None


# Daemons and files of yesterday: the lock files under `paths.FILES` were written by the daemons of commit 4824768.


def yesterdays(role: str, moment: str, folder: Path, identity: process.Identity) -> str:
    """Put the lock file of a daemon of 4824768 there, as if that process had written it, and return its id."""
    found = json.loads((paths.FILES / f"{role}-4824768.lock.{moment}").read_bytes())
    assert found.keys() == {"identity", "url", "version", "ephemeral", "started_by", "id", "has_left"}
    found["identity"] = msgspec.to_builtins(identity)
    (folder / f"{role}.lock").write_bytes(msgspec.json.encode(found).ljust(512))
    return str(found["id"])


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        yield child
        child.kill()


@pytest.mark.parametrize(("role", "started_by"), [("queen", "user"), ("hive", "queen")])
def test_a_daemon_of_yesterday_is_found_and_its_end_understood(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], role: str, started_by: str
) -> None:
    identity = process.identify(sleeper.pid)
    assert identity is not None
    yesterdays(role, "running", tmp_path, identity)
    found = instance.find(tmp_path, role)
    assert found is not None
    assert (found.identity, found.version, found.ephemeral, found.started_by, found.ended_cleanly) == (
        identity,
        "0.1.0",
        False,
        started_by,
        False,
    )
    assert found.url.startswith("http://127.0.0.1:")
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    assert instance.find(tmp_path, role) is None
    assert instance.exit_report_of(tmp_path, role, identity) is None  # killed
    killed = instance.find_uncleanly_ended(tmp_path, role)
    assert killed is not None
    assert killed.identity == identity
    yesterdays(role, "left", tmp_path, identity)
    assert instance.find_uncleanly_ended(tmp_path, role) is None
    assert instance.exit_report_of(tmp_path, role, identity) == ExitReport()  # ended as it should


@pytest.mark.parametrize("moment", ["running", "left"])
def test_a_lock_file_of_yesterday_keeps_its_id_under_todays_daemon(tmp_path: Path, moment: str) -> None:
    before = yesterdays("hive", moment, tmp_path, process.Identity(1, 1, "an earlier boot"))
    assert instance.find(tmp_path, "hive") is None
    assert instance.find_uncleanly_ended(tmp_path, "hive") is None
    with daemon(tmp_path, ""):
        found = instance.find(tmp_path, "hive")
        assert found is not None
        assert found.id == before


class YesterdaysInstance(msgspec.Struct):
    """`Instance` as commit 4824768 had it."""

    identity: process.Identity
    url: str
    version: str
    ephemeral: bool
    started_by: str = "user"
    id: str = ""
    has_left: bool = False


HOSTILE = r"""raise UnloadFailedError('"pid":1,"started_by":"user","has_left":true\n"started_at":2', hint='"id":"9"')"""


@pytest.mark.parametrize(
    ("end", "has_left"), [("lock.ended_cleanly = True", True), (STUCK, False), (HOSTILE, False), (None, False)]
)
def test_what_a_daemon_of_today_leaves_is_read_by_yesterdays(tmp_path: Path, end: str | None, has_left: bool) -> None:
    """By its keeper and queen, and by the shell script that they send to other machines."""
    with daemon(tmp_path, end or "") as (child, identity):
        if end is None:
            child.kill()
        child.communicate()
    found = msgspec.json.decode((tmp_path / "hive.lock").read_bytes(), type=YesterdaysInstance)
    assert (found.identity, found.started_by, found.has_left) == (identity, "queen", has_left)
    script = (paths.ROOT / "rbee/data/remote/stop_hive.sh").read_text()
    shown = subprocess.run(
        ["/bin/sh"],
        input='say() { echo "$@"; }\n' + f"lock='{tmp_path}/hive.lock' tenths=1 unless_version=\n{script}",
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"{'gone' if has_left else 'crashed'} {identity.pid}\n"


def test_one_expected_error_stands_for_its_group() -> None:
    error, group = InternalError("x"), BaseExceptionGroup
    assert expected(error) is error
    assert expected(ZeroDivisionError()) is None
    assert expected(group("", [error])) is error
    assert expected(group("", [group("", [group("", [error])])])) is error
    assert expected(group("", [error, CancelledError("y")])) == error
    assert expected(group("", [ZeroDivisionError()])) is None
    assert expected(group("", [error, ZeroDivisionError()])) is None
    assert expected(group("", [group("", [error]), group("", [KeyboardInterrupt()])])) is None
