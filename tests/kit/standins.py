"""The stand-in for a worker, as a hive starts it: what it can do stands in `standin_worker.py`."""

from __future__ import annotations

import shlex
import sys

from tests.kit.paths import STANDIN_WORKER


def standin(*behaviour: str) -> str:
    """Return the command line, for RBEE_WORKER_COMMAND, of a stand-in that behaves so."""
    return shlex.join([sys.executable, str(STANDIN_WORKER), *(behaviour or ("well",))])
