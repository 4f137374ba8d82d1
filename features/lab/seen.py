"""What the steps of one scenario have seen so far."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from http.server import HTTPServer  # noqa: TC003
from pathlib import Path  # noqa: TC003
from typing import Any

import httpx  # noqa: TC002

from features.lab.terminal import Shown  # noqa: TC001

Done = subprocess.CompletedProcess[bytes]
Row = dict[str, Any]
"""An object of an answer's JSON."""


@dataclass(init=False, repr=False, slots=True)
class Seen:
    """Each step sets what later ones look at; what no step has set, none can read, nor set what is not named here."""

    # Commands that have ended.
    done: Done | Shown
    before: Done
    shown: Shown
    stderr: bytes
    errors: str
    """The same as text."""
    text: str
    lines: list[tuple[float, str]]
    """Lines of stderr, and when each came."""
    took: float
    """Seconds."""
    codes: list[int]
    of_pythons: list[tuple[str, Done, dict[int, list[str]]]]
    """Of each interpreter its path, what the command came to, and the processes left."""
    of_old_pythons: list[Done]
    of_quantisations: dict[str, Done]

    # Programs that run.
    infer: subprocess.Popen[bytes]
    other: subprocess.Popen[bytes]
    following: subprocess.Popen[bytes]
    queen: subprocess.Popen[bytes]
    hive: subprocess.Popen[bytes]
    running: tuple[list[int], list[int]]
    """The hives and the workers of a node."""

    # What daemons answered.
    answer: httpx.Response
    answers: list[httpx.Response]
    events: list[str]
    """The data of each event of a stream, the last one too."""
    progress: list[str]
    told: list[Row]
    task: Row
    second: Row
    spawned: Row
    ready: Row
    row: Row
    rows: list[Row]
    worker: Row
    workers: dict[str, Row]
    """By node."""
    states: list[str]
    request: str
    correlation: str
    listener: HTTPServer
    """Takes a worker's callback."""
    id: str
    pid: int

    # Models.
    model: str
    sizes: dict[str, int]
    memory: dict[str, int]
    reckoned: dict[str, int]
    available: int

    # Files, and what was there before.
    settings: str
    settings_file: Path
    token_file: Path
    folders: list[str]
    folders_named: list[str]
    system_before: list[bool]
    began: float
    connected: float
    connections: int
    asked: int
    """How many requests the hub had got."""
