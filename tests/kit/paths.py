"""Where the programs are that tests start, and the files that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
KIT: Final = ROOT / "tests" / "kit"
STANDIN_WORKER: Final = KIT / "standin_worker.py"
FILES: Final = KIT / "files"
"""What earlier versions of rbee wrote."""
