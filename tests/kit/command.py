"""Runs rbee as a command, from the source."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.kit.paths import ROOT
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def run_rbee(*arguments: str, env: Mapping[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in this environment alone and with nothing on its stdin."""
    return subprocess.run(
        [sys.executable, "-m", "rbee", *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
