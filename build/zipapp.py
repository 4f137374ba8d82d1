"""Builds dist/rbee.pyz: one file with every role, for every CPython that rbee supports, as shiv.toml says."""

import fnmatch
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    # Before the first import that an older Python does not have.
    sys.exit(
        f"rbee: CPython 3.11 to 3.14 is needed to build; this is Python {'.'.join(map(str, sys.version_info[:2]))}"
    )

import tomllib
import zipfile
from pathlib import Path
from typing import Any

import cache
import environment
import llama
import wheels
from progress import StepFailed, exit_code

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "build" / "launcher"
SYMBOL_VERSION = re.compile(rb"GLIBC_2\.(\d+)\0")


def build() -> Path:
    """Writes the file, the same bytes for the same input, and returns its path. Raises StepFailed."""
    plan = tomllib.loads((ROOT / "shiv.toml").read_text("utf-8"))
    target = ROOT / plan["file"]["path"]
    target.parent.mkdir(exist_ok=True)
    held = target.parent / ".zipapp.lock"
    held.touch()
    cache.remove_abandoned(target.parent)
    with cache.lock(held):
        _build(plan, target)
    return target


def _build(plan: dict[str, Any], target: Path) -> None:
    packages = wheels.fetch(
        ROOT / "build" / "locks" / "runtime.txt", plan["target"]["pythons"], plan["target"]["glibc"]
    )
    with tempfile.TemporaryDirectory(prefix=".zipapp-", dir=target.parent) as scratch:
        site = Path(scratch) / "site-packages"
        _stage(site, [*packages, llama.wheel()], plan["exclude"]["files"])
        packed = _pack(site, Path(scratch) / "packed.pyz", plan["file"])
        whole = Path(scratch) / target.name
        whole.write_bytes(packed + _launcher(packed, _oldest_glibc(site), plan["file"]["source_date_epoch"]))
        whole.chmod(0o755)
        if whole.stat().st_size > plan["file"]["limit_mb"] * 1_000_000:
            raise StepFailed(f"{target.name} has {whole.stat().st_size} bytes, more than shiv.toml allows")
        whole.replace(target)


def _stage(site: Path, archives: list[Path], excluded: list[str]) -> None:
    """Merges the wheels and the checkout's package into one folder."""
    files: dict[str, bytes] = {}
    for archive in archives:
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.infolist():
                name = _installed_name(member.filename)
                if name and not member.is_dir() and not _matches(name, excluded):
                    _add(files, name, wheel.read(member))
    for path in (ROOT / "rbee").rglob("*"):
        name = str(path.relative_to(ROOT))
        if path.is_file() and not _matches(name, excluded):
            _add(files, name, path.read_bytes())
    for name, data in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)  # shiv writes the mode down, and the file must not depend on the umask


def _installed_name(name: str) -> str | None:
    """Where an installer would put a wheel's member in site-packages; None for scripts and the like."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    scheme, _, inside = rest.partition("/")
    return inside if scheme in ("purelib", "platlib") else None


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _add(files: dict[str, bytes], name: str, data: bytes) -> None:
    if files.setdefault(name, data) != data:
        raise StepFailed(f"two wheels hold different files named {name}: one file cannot serve every Python")


def _oldest_glibc(site: Path) -> str:
    """The oldest glibc that has all symbols that the libraries need."""
    minors = [int(minor) for path in site.rglob("*.so*") for minor in SYMBOL_VERSION.findall(path.read_bytes())]
    return f"2.{max(minors)}"


def _pack(site: Path, packed: Path, file: dict[str, Any]) -> bytes:
    """Has shiv pack the folder. No .pyc: each Python writes its own when it first needs them."""
    command = [sys.executable, "-P", "-m", "shiv", "--site-packages", str(site), "--reproducible"]
    command += ["--entry-point", file["entry_point"], "--python", file["interpreter"], "--output-file", str(packed)]
    stamped = os.environ | {"SOURCE_DATE_EPOCH": str(file["source_date_epoch"]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=stamped, cwd=packed.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"shiv failed:\n{done.stdout}{done.stderr}".rstrip())
    return packed.read_bytes()


def _launcher(packed: bytes, glibc: str, epoch: int) -> bytes:
    """A second, tiny archive to put behind shiv's.

    Python opens an archive by its last directory. shiv's names two thousand files, and reading it takes longer than
    all the rest of a start; this one names two. At first use the launcher unpacks shiv's, from the front of the file.
    """
    constants = {
        b"@BUILD_ID@": _build_id(packed).encode(),
        b"@ARCHIVE_SIZE@": str(len(packed)).encode(),
        b"@GLIBC@": glibc.encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for source in sorted(LAUNCHER.glob("*.py")):
            data = source.read_bytes()
            for name, value in constants.items():
                data = data.replace(name, value)
            member = zipfile.ZipInfo(source.name, time.gmtime(epoch)[:6])
            member.external_attr = 0o644 << 16
            # By this `rbee install` knows its own file from a stranger's, and which version that is. Not as the
            # archive's comment: Python 3.6 opens no archive that has one, and could not say that it is too old.
            member.comment = f"rbee.pyz {_version()}".encode()
            archive.writestr(member, data)
    return buffer.getvalue()


def _version() -> str:
    """The version that the package states, without importing it."""
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "rbee" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert match, "rbee/__init__.py states no version"
    return match[1]


def _build_id(packed: bytes) -> str:
    """shiv's digest of all names and contents, shortened to name a folder."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return str(json.loads(archive.read("environment.json"))["build_id"])[:16]


def main() -> None:
    """Builds the file and prints what came out."""
    target = build()
    content = target.read_bytes()
    print(f"{target.relative_to(ROOT)}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    environment.enter("zipapp")
    sys.exit(exit_code(main))
