"""A terminal for a program, made of a pseudo-terminal; what it shows is kept."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from features.lab.machine import Machine


class Shown(NamedTuple):
    """How a command ended on a terminal, and all that it wrote there."""

    returncode: int
    text: str


def run_on_terminal(machine: Machine, *arguments: str, answers: dict[str, str] | None = None) -> Shown:
    """Run a command of the program with a terminal as its stdout and stderr, and as its stdin if there are `answers`.

    Those are what the user types, by the end of what is then on the screen.
    """
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        machine.command(*arguments),
        env={**machine.env, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=theirs if answers else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other side of a terminal closed
            break
        shown += chunk
        for question, answer in (answers or {}).items():
            if shown.endswith(question.encode()):
                os.write(ours, answer.encode())
    os.close(ours)
    return Shown(child.wait(PATIENCE), shown.decode("utf-8", "replace"))
