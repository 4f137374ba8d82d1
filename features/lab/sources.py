"""Git repositories that rbee can be built from on another machine, and what makes the build quick there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from features.lab.machine import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
CACHES = {"XDG_CACHE_HOME": str(Path.home() / ".cache")} | {
    name: os.environ[name] for name in ("RBEE_CACHE", "XDG_CACHE_HOME") if name in os.environ
}
"""Where the build keeps its things; read before other tests' fixtures give this process an empty home."""
_HOOK = """\
#!/bin/sh
# What the build would install anew, as it is in the checkout that is tested: links, because it is large.
[ -e .venv ] || cp -al {venv} .venv 2>/dev/null || cp -a {venv} .venv
"""


def of_this_checkout(repository: Path, branch: str) -> None:
    """Make a bare repository whose only branch holds the checkout's files as they are now."""
    _commit(ROOT, repository, branch)


def of_a_copy(repository: Path, branch: str) -> None:
    """Make one in which the build is but a copy of the program that is tested."""
    files = repository.with_suffix(".files")
    (files / "build").mkdir(parents=True)
    (files / "build" / "zipapp.py").write_text(
        "import pathlib, shutil\n"
        "pathlib.Path('dist').mkdir(exist_ok=True)\n"
        f"shutil.copy({str(PROGRAM)!r}, 'dist/rbee.pyz')\n"
        "print('copied it')\n"
    )
    _commit(files, repository, branch)


def quick_build(folder: Path) -> dict[str, str]:
    """Return what a node's environment must hold so that a clone builds with what this checkout has already made."""
    hook = folder / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(_HOOK.format(venv=ROOT / ".venv"))
    hook.chmod(0o755)
    return {"GIT_TEMPLATE_DIR": str(folder)} | CACHES


def _commit(files: Path, repository: Path, branch: str) -> None:
    """Make a bare repository with one commit of a folder's files, whatever that belongs to."""
    _git("init", "--quiet", "--bare", str(repository))
    env = {"GIT_DIR": str(repository), "GIT_WORK_TREE": str(files), "GIT_INDEX_FILE": str(repository / "index")}
    _git("add", "--all", cwd=files, **env)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    commit = _git(*who, "commit-tree", _git("write-tree", **env), "-m", "as it is", **env)
    _git("update-ref", f"refs/heads/{branch}", commit, **env)


def _git(*words: str, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(["git", *words], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()
