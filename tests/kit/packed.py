"""The program of this checkout as one file, as large as the real one, made in no time."""

from __future__ import annotations

import os
import sysconfig
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
{before}
from rbee.entry import main
sys.exit(main())
"""


def build(folder: Path, version: str, *, queen: str = "v2", others: str = "v1") -> Path:
    """Write the rbee.pyz of a version that differs from this one by its number, and its interfaces."""
    before = (
        # On a node the base Python runs it, without the venv of this one.
        f"sys.path.insert(1, {sysconfig.get_path('purelib')!r})\n"
        f"import rbee; rbee.__version__ = {version!r}; import rbee.wire.common; import rbee.wire.queen\n"
        f"rbee.wire.common.API_VERSION, rbee.wire.queen.API_VERSION = {others!r}, {queen!r}"
    )
    return pack(folder / f"rbee-{version}.pyz", version, before=before, size=1000)


def pack(file: Path, version: str = __version__, *, before: str = "", size: int = SIZE) -> Path:
    """Write a file that is taken for the rbee.pyz of a version, and runs the code of this checkout.

    `before` is Python that it runs first.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        member = zipfile.ZipInfo("__main__.py")
        member.comment = f"rbee.pyz {version}".encode()
        archive.writestr(member, MAIN.format(root=str(ROOT), before=before))
        archive.writestr("rest", os.urandom(size))
    content = file.read_bytes()
    file.write_bytes(b"#!/usr/bin/env python3\n" + content)
    file.chmod(0o755)
    return file
