"""Makes environments with other people's clients of the queen, outside the checkout, for the tests that use those."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cache
from progress import Progress, StepFailed

LOCKS = Path(__file__).resolve().parent / "locks"
FEW, ALL = "clients", "all-clients"
"""The locks: what every run of the tests tries, and what a full one does."""
QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}


def python(name: str) -> Path:
    """The Python of an environment that holds a lock's packages and no others. Raises StepFailed."""
    lock = LOCKS / f"{name}.txt"
    home = _home(lock.read_text("utf-8"), sys.version)
    with cache.lock(home.parent / f".{home.name}.lock"):
        # Its programs hold its path, so it is made at its place; the mark comes last.
        if not ((home / "made").exists() and (home / "bin" / "python").exists()):
            total = len(re.findall(r"^[a-z].*==", lock.read_text("utf-8"), re.MULTILINE))
            with Progress(f"setting up (once): installing {total} packages of other people's clients"):
                # With our pip: one of its own would take four seconds.
                _run("making an environment", [sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)])
                pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
                options = ["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:", "-r", str(lock)]
                _run("installing clients", [*pip, *options])
            (home / "made").touch()
    cache.remove_unused(home.parent, home)
    return home / "bin" / "python"


def node_modules() -> Path:
    """The folder of the packages that the tests use with Node. Raises StepFailed, without Node too."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise StepFailed("Node and npm are not here: the clients for Node are not tested")
    files = ("package.json", "package-lock.json")
    home = _home(*((LOCKS / "node" / name).read_text("utf-8") for name in files))
    cache.remove_abandoned(home.parent)
    with cache.lock(home.parent / f".{home.name}.lock"):
        if not home.exists():
            with (
                tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch,
                Progress("setting up (once): installing clients for Node"),
            ):
                made = Path(scratch) / "new"
                made.mkdir()
                for name in files:
                    shutil.copy(LOCKS / "node" / name, made)
                options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(made)]
                _run("npm ci", ["npm", "ci", *options])
                made.rename(home)
    cache.remove_unused(home.parent, home)
    return home / "node_modules"


def _home(*inputs: str) -> Path:
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    parent = cache.folder() / "clients"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return parent / digest


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"{name} failed:\n{(done.stderr or done.stdout).rstrip()[-2000:]}")
