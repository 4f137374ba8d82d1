"""Fetches the locked wheels for every Python that the zipapp serves, and keeps them outside the checkout."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cache
from progress import Progress, StepFailed

# Older wheels name their platform by one of these in place of a glibc version.
NAMED_PLATFORMS = {17: "manylinux2014_x86_64", 12: "manylinux2010_x86_64", 5: "manylinux1_x86_64"}


def fetch(lock: Path, pythons: list[str], glibc: str) -> list[Path]:
    """The lock's wheels for all of `pythons`, each file once, by name. Raises StepFailed."""
    wanted = [lock.read_text("utf-8"), pythons, glibc]
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
    home = cache.folder() / "wheels" / key
    cache.remove_abandoned(home.parent)
    with cache.lock(home.parent / f".{key}.lock"):
        if not home.exists():
            with tempfile.TemporaryDirectory(prefix=f".{key}-", dir=home.parent) as scratch:
                _download(lock, pythons, glibc, Path(scratch))
                (Path(scratch) / "wheels").rename(home)
    cache.remove_unused(home.parent, home)
    return sorted(home.glob("*.whl"))


def _download(lock: Path, pythons: list[str], glibc: str, scratch: Path) -> None:
    with Progress(f"fetching wheels for Python {', '.join(pythons)}") as progress:
        for number, python in enumerate(pythons, 1):
            requirements = scratch / f"{python}.txt"
            requirements.write_text(_without_markers(lock.read_text("utf-8"), python), "utf-8")
            command = [sys.executable, "-P", "-m", "pip", "download", "--dest", str(scratch / "wheels")]
            command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(requirements)]
            command += ["--implementation", "cp", "--python-version", python]
            for tag in (f"cp{python.replace('.', '')}", "abi3", "none"):
                command += ["--abi", tag]
            for platform in _platforms(glibc):
                command += ["--platform", platform]
            quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
            if done.returncode:
                raise StepFailed(f"fetching wheels for Python {python} failed; pip said:\n{done.stderr.rstrip()}")
            progress.step(number, len(pythons))


def _without_markers(lock: str, python: str) -> str:
    """The lock with markers evaluated for `python`: pip evaluates them for the Python that it runs under."""
    from packaging.markers import Marker  # of .venv, which may only just have been made

    kept = []
    for requirement in re.split(r"\n(?=\S)", lock):
        head, semicolon, rest = requirement.partition(" ; ")
        if semicolon:
            marker, hashes = rest.split(" \\\n", 1)
            if not Marker(marker).evaluate({"python_version": python, "python_full_version": f"{python}.0"}):
                continue
            kept.append(f"{head} \\\n{hashes}")
        else:
            kept.append(requirement)
    return "\n".join(kept)


def _platforms(glibc: str) -> Iterator[str]:
    for minor in range(int(glibc.removeprefix("2.")), 4, -1):
        yield f"manylinux_2_{minor}_x86_64"
        if minor in NAMED_PLATFORMS:
            yield NAMED_PLATFORMS[minor]
