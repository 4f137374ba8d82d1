"""The stopwatch of the tests counts what a program takes, and not what others take from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.kit.stopwatch import Stopwatch

SPIN = "print(flush=True)\nwhile True: pass"


def test_sleep_is_time() -> None:
    watch = Stopwatch()
    time.sleep(0.2)
    assert 0.15 < watch.seconds() < 0.5


def test_what_another_program_computes_meanwhile_is_none() -> None:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            watch, started, computed = Stopwatch(), time.monotonic(), time.thread_time()
            while time.thread_time() - computed < 0.3:
                pass
            wall, seconds = time.monotonic() - started, watch.seconds()
            other.kill()
    finally:
        os.sched_setaffinity(0, processors)
    assert wall > 0.4, "the other one has computed nothing: this proves nothing"
    assert 0.25 < seconds < 0.4
