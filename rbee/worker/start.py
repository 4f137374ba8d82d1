"""Starts a worker: reads its options, and then imports all that serves requests."""

from __future__ import annotations

import os
import sys
from typing import Final

from rbee.adapters.logs import json_log
from rbee.errors import RbeeError
from rbee.worker import beginning, command_line

SWITCH_SECONDS: Final = 0.0005
"""How long Python lets one thread run while another wants to: its 5 ms are longer than many a decode step, and the
engine thread would spend them waiting for trio's to finish sending the last token."""


def main(argv: list[str]) -> int:
    """Run the worker until it is asked to end; returns the exit code."""
    options = command_line.parse(argv)
    json_log.to_stderr(beginning.ROLE)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        begun = beginning.begin(options)
    except RbeeError:
        begun = None  # the daemon tries once more, and tells the hive why it fails
    from rbee.worker import daemon

    code = daemon.run(options, begun)
    if begun is not None and begun.thread.is_running:
        # It may be in native code, whose destructors must not run beside it.
        os._exit(code)
    return code
