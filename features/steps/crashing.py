"""Steps about workers that die, and workers that cannot start."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bdd import given, parsers, then, when

from features.lab.machine import PROGRAM, letters
from features.steps.failing import ALPHABET, ENDLESS
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen

BEHAVIOURS = {
    "gets a memory fault after 3 tokens": ("segfault", "--after", "3"),
    "never calls back": ("silent",),
    "ends at once": ("exit",),
    "takes all memory while it loads": ("hungry",),
    "reacts to neither a shutdown nor SIGTERM": ("stubborn",),
}


@given(parsers.re(f"a worker that (?P<behaviour>{'|'.join(BEHAVIOURS)})"))
def _misbehaves(machine: Machine, behaviour: str) -> None:
    machine.stand_in(*BEHAVIOURS[behaviour])


@given("workers have 1 second to start")
def _start_limit(machine: Machine) -> None:
    machine.env["RBEE_TIMEOUTS_WORKER_READY"] = "1"


@given(parsers.parse("workers may use {limit:d} MB of address space"))
def _memory_limit(machine: Machine, limit: int) -> None:
    machine.env["RBEE_WORKER_COMMAND"] = f"prlimit --as={limit}000000 {machine.python} {PROGRAM} worker"


@given(parsers.parse("infer runs with it and has written {count:d} tokens"))
def _writing(machine: Machine, seen: Seen, count: int) -> None:
    seen.infer, seen.stderr = machine.start("infer", "--model", seen.model, *ENDLESS), b""
    seen.text = letters(seen.infer, count)


@when("the worker gets a memory fault")
def _fault(machine: Machine, seen: Seen) -> None:
    (seen.row,) = machine.workers()
    assert seen.row["state"] == "busy"
    os.kill(seen.row["pid"], signal.SIGSEGV)


@then("infer ends with 1 and its text stays as far as it came")
def _text_stays(seen: Seen) -> None:
    stdout, stderr = seen.infer.communicate(timeout=PATIENCE)
    seen.text += stdout.decode()
    seen.errors = stderr.decode()
    assert seen.infer.returncode == 1, seen.errors
    assert (ALPHABET * 1000).startswith(seen.text)


@then("stderr says that the stream closed unexpectedly, with that many of 16000 tokens")
def _how_many(seen: Seen) -> None:
    assert f"rbee: the stream closed unexpectedly, with {len(seen.text)} of 16000 tokens\n" in seen.errors
    assert "Traceback" not in seen.errors


@then("stderr names a file, which only the user can read, with that text")
def _partial_file(machine: Machine, seen: Seen) -> None:
    found = re.search(r"^the text so far is in (/\S+)$", seen.errors, re.MULTILINE)
    assert found, seen.errors
    file = Path(found[1])
    assert file.is_relative_to(machine.state)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == seen.text


@then("stderr says that the worker ended by SIGSEGV, with its pid, the end of its log and its path")
def _reason(machine: Machine, seen: Seen) -> None:
    row, text = seen.row, seen.errors
    assert f"\nthe worker (pid {row['pid']}) ended: SIGSEGV (a memory fault in native code)" in text
    shown = text.partition("\nthe end of its log:\n")[2].partition("\nhint: ")[0].splitlines()
    assert 0 < len(shown) <= 20
    assert any("loaded" in line for line in shown), shown
    assert f"{machine.state}/logs/worker-{row['id']}.log" in text.partition("\nhint: ")[2]


@then("the hive has removed the worker, and logged its pid and SIGSEGV")
def _removed(machine: Machine, seen: Seen) -> None:
    wait_until(lambda: not machine.workers())
    assert machine.worker_processes() == {}
    (error,) = [line["message"] for line in machine.hive_log() if line["level"] == "error"]
    assert f"(pid {seen.row['pid']}) ended: SIGSEGV" in error


@then("workers list says so too")
def _listed(machine: Machine, seen: Seen) -> None:
    told = machine.run("workers", "list").stdout.decode()
    assert f"worker {seen.row['id']} (pid {seen.row['pid']})" in told
    assert "ended: SIGSEGV (a memory fault in native code)" in told
    found = json.loads(machine.run("workers", "list", "--json").stdout)
    assert found["workers"] == []
    (ended,) = found["ended"]
    assert ended["worker_id"] == seen.row["id"]


@then(parsers.parse('stdout is exactly "{text}"'))
def _exactly(seen: Seen, text: str) -> None:
    assert seen.done.stdout.decode() == text


@given("workers have 1 second to unload")
def _unload_limit(machine: Machine) -> None:
    machine.env |= {"RBEE_TIMEOUTS_UNLOAD": "1", "RBEE_TIMEOUTS_ACKNOWLEDGE": "0.3"}


@given("the user has run up")
def _up(machine: Machine) -> None:
    done = machine.run("up")
    assert done.returncode == 0, done.stderr


@when("the user runs down")
def _down(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("down")


@then(parsers.parse("within {seconds:d} seconds the worker is killed"))
def _killed(machine: Machine, seen: Seen, seconds: int) -> None:
    (seen.row,) = machine.workers()
    wait_until(lambda: not machine.workers(), seconds)
    assert machine.worker_processes() == {}
    assert f"worker {seen.row['id']} is killed" in [line["message"] for line in machine.hive_log()]


@then("workers list names that worker, its pid, why it was killed, and its log")
def _listed_as_killed(machine: Machine, seen: Seen) -> None:
    row, told = seen.row, seen.done.stdout.decode()
    assert f"worker {row['id']} (pid {row['pid']})" in told
    assert "had not ended 1 s after it was told to, and was killed" in told
    assert f"{machine.state}/logs/worker-{row['id']}.log" in told


@when("the user shuts it down")
def _shut_down(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("workers", "shutdown", "--id", seen.row["id"])


@then("only queen and hive still run")
def _daemons_only(machine: Machine) -> None:
    assert sorted(words[2] for words in machine.daemons().values()) == ["hive", "queen"]
