"""Steps that interrupt a command at a chosen moment."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from pytest_bdd import given, parsers, then, when

from features.lab.machine import PATIENCE

if TYPE_CHECKING:
    from features.lab.machine import Machine

MOMENTS = {
    "starting": (b"starting one for this command", 10),
    "loading": (b"answers HTTP", 10),
    "reading the prompt": (b"prompt tokens", 400),
    "writing": (b"prompt tokens", 1),
}
"""What stderr says when the moment has come, and how many words the prompt has."""


@given(parsers.parse("infer runs with it and is {moment}"))
def _running(machine: Machine, seen: dict[str, Any], moment: str) -> None:
    words, length = MOMENTS[moment]
    prompt = "word " * length
    child = machine.start("infer", "--model", seen["model"], "--prompt", prompt, "--max-tokens", "500")
    seen["infer"], seen["stderr"] = child, b""
    assert child.stderr is not None
    while words not in seen["stderr"]:
        line = child.stderr.readline()
        assert line, seen["stderr"]
        seen["stderr"] += line
    if moment == "writing":
        assert child.stdout is not None
        assert child.stdout.read(1)


@when("the user presses Ctrl+C")
def _interrupt(seen: dict[str, Any]) -> None:
    assert seen["infer"].poll() is None
    seen["infer"].send_signal(signal.SIGINT)
    _, stderr = seen["infer"].communicate(timeout=PATIENCE)
    seen["stderr"] += stderr


@then('infer ends with 130 and says "Cancelled." on a line of its own')
def _cancelled(seen: dict[str, Any]) -> None:
    assert seen["infer"].returncode == 130, seen["stderr"]
    assert b"Cancelled." in seen["stderr"].splitlines()
    assert b"Traceback" not in seen["stderr"]


@then("the worker is idle again and stays")
def _idle(machine: Machine) -> None:
    row = machine.wait_for_worker("idle")
    assert row["slots_available"] == row["slots_total"]
    assert row["pid"] in machine.worker_processes()
