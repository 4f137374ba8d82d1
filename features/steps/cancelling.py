"""Steps that interrupt a command at a chosen moment."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

from pytest_bdd import given, parsers, then, when

from features.lab.machine import letters
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from features.lab.machine import Machine
    from features.lab.seen import Seen

MOMENTS = {
    "starting": (b"starting one for this command", 10),
    "loading": (b"answers HTTP", 10),
    "reading the prompt": (b"prompt tokens", 400),
    "writing": (b"prompt tokens", 1),
}
"""What stderr says when the moment has come, and how many words the prompt has."""


@given(parsers.parse("infer runs with it and is {moment}"))
def _running(machine: Machine, seen: Seen, moment: str) -> None:
    words, length = MOMENTS[moment]
    options = ["--prompt", "word " * length, "--max-tokens", "500", "--temperature", "0"]
    child = machine.start("infer", "--model", seen.model, *options)
    seen.infer, seen.stderr = child, b""
    assert child.stderr is not None
    while words not in seen.stderr:
        line = child.stderr.readline()
        assert line, seen.stderr
        seen.stderr += line
    if moment == "writing":
        letters(child, 1)


@when("the user presses Ctrl+C")
def _interrupt(seen: Seen) -> None:
    assert seen.infer.poll() is None
    began = time.monotonic()
    seen.infer.send_signal(signal.SIGINT)
    _, stderr = seen.infer.communicate(timeout=PATIENCE)
    seen.took = time.monotonic() - began
    seen.stderr += stderr


@then('infer ends with 130 and says "Cancelled." on a line of its own')
def _cancelled(seen: Seen) -> None:
    assert seen.infer.returncode == 130, seen.stderr
    assert b"Cancelled." in seen.stderr.splitlines()
    assert b"Traceback" not in seen.stderr


@then(parsers.parse("it took at most {most:d} seconds"))
def _quickly(seen: Seen, most: int) -> None:
    assert seen.took <= most


@then("the worker has stopped generating, is idle and stays")
def _stopped(machine: Machine, seen: Seen) -> None:
    """Asked itself at once: what its hive says of it may be a moment old."""
    (pid,) = machine.worker_processes()
    with machine.queen() as queen:
        task = queen.post("/v2/tasks", json={"prompt": "A", "model": seen.model}).json()
    with machine.client(task["worker_url"], task["api_key"]) as worker:
        assert worker.get("/v1/ready").json()["state"] == "idle"
        figures = worker.get("/metrics").text
    assert 'rbee_worker_requests_total{outcome="cancelled"} 1.0\n' in figures
    written = re.search(r"^rbee_worker_generated_tokens_total (\S+)$", figures, re.MULTILINE)
    assert written, figures
    assert 20 <= float(written[1]) < 16000
    row = machine.wait_for_worker("idle")
    assert (row["pid"], row["slots_available"]) == (pid, row["slots_total"])


@given("a worker that takes prompts and never writes")
def _silent_worker(machine: Machine) -> None:
    machine.stand_in("hang")


@given("a worker that takes prompts and answers nobody who cancels")
def _mute_worker(machine: Machine) -> None:
    machine.stand_in("hang", "mute")


@given("an acknowledgement may take 1 second")
def _short_patience(machine: Machine) -> None:
    machine.env["RBEE_TIMEOUTS_ACKNOWLEDGE"] = "1"


def _calls(machine: Machine) -> list[str]:
    """Return what the stand-in for a worker was asked for."""
    return "".join(log.read_text() for log in (machine.state / "logs").glob("worker-*.log")).splitlines()


def _requests(machine: Machine) -> list[str]:
    return [line.removeprefix("request ") for line in _calls(machine) if line.startswith("request ")]


@given("infer waits for its first token")
def _waiting(machine: Machine, seen: Seen) -> None:
    seen.infer, seen.stderr = machine.start("infer", "--prompt", "Hello"), b""
    (seen.request,) = wait_until(lambda: _requests(machine))


@given("another infer waits for its first token")
def _other_waiting(machine: Machine, seen: Seen) -> None:
    seen.other = machine.start("infer", "--prompt", "Hello")
    wait_until(lambda: len(_requests(machine)) == 2)


@then("the worker was told to stop that request and no other")
def _told(machine: Machine, seen: Seen) -> None:
    stops = [line for line in _calls(machine) if line.startswith("DELETE")]
    assert stops == [f"DELETE /v1/inference/{seen.request}"]


@then("the other infer still waits")
def _other_waits(seen: Seen) -> None:
    assert seen.other.poll() is None


@then("it took at least 1 second and at most 4")
def _bounded(seen: Seen) -> None:
    assert 1 <= seen.took <= 4
