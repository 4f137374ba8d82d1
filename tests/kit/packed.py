"""The program of this checkout as one file, as large as the real one, made in no time."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

from rbee import __version__
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 26_000_000
MAIN = """\
import sys
sys.path.insert(0, {root!r})
from rbee.entry import main
sys.exit(main())
"""


def pack(file: Path, version: str = __version__) -> Path:
    """Write a file that is taken for the rbee.pyz of a version, and runs the code of this checkout."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo("__main__.py")
        member.comment = f"rbee.pyz {version}".encode()
        archive.writestr(member, MAIN.format(root=str(ROOT)))
        archive.writestr("rest", os.urandom(SIZE))
    content = file.read_bytes()
    file.write_bytes(b"#!/usr/bin/env python3\n" + content)
    file.chmod(0o755)
    return file
