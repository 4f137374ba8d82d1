"""Makes the checkout's .venv from the locks: rbee's packages, and on demand the tools to pack it or to test it."""

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

import cache
import llama
import stamp
from progress import Progress, StepFailed, exit_code

LOCKS = Path(stamp.ROOT) / "build" / "locks"
LOG = Path(stamp.VENV) / "setup.log"
TOOLS = {
    "zipapp": (stamp.ZIPAPP, "tools to pack rbee", (stamp.DEV,)),
    "dev": (stamp.DEV, "tools for tests", ()),
}
"""Name → the lock, what it holds, and the locks that hold the same and more."""
TAIL_LINES = 8
REQUIREMENT_FOUND = ("Collecting ", "Processing ", "Requirement already satisfied")


def set_up(tools: str | None = None) -> int:
    """Brings .venv up to date, with tools of TOOLS by name. Returns an exit code; errors have been reported."""
    os.umask(0o022)  # the modes of some installed files end up in the zipapp
    return exit_code(lambda: _bring_up_to_date(tools))


def _bring_up_to_date(tools: str | None) -> None:
    with cache.lock(Path(stamp.ROOT) / ".venv.lock"):
        if not (stamp.is_current() and os.access(stamp.PYTHON, os.X_OK)):
            _make()
        if tools is not None:
            locks, what, within = TOOLS[tools]
            if not any(stamp.is_current(found) for found in (locks, *within)):
                _install_lock(Path(locks[0]).name, what)
                stamp.write(locks)


def enter(tools: str = "dev") -> None:
    """Continues in .venv's Python with tools of TOOLS by name; restarts the script in it if needed."""
    if Path(sys.prefix).resolve() == Path(stamp.VENV):
        return
    if code := set_up(tools):
        sys.exit(code)
    os.execv(stamp.PYTHON, [stamp.PYTHON, *sys.argv])


def _make() -> None:
    # First what takes longest and is most likely to fail: without a compiler the rest is useless.
    engine = llama.wheel()
    # --clear: nothing of an older lock or an interrupted run may stay.
    command = [sys.executable, "-m", "venv", "--clear", stamp.VENV]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise StepFailed(
            f"making {stamp.VENV} failed: {_last_line(made.stdout + made.stderr)}",
            "apt install python3-venv (Debian, Ubuntu), then run this again",
        )
    _install_lock("runtime.txt", "packages")
    _pip(["--no-index", "--no-deps", str(engine)])
    stamp.write(stamp.RUNTIME)


def _install_lock(name: str, what: str) -> None:
    lock = LOCKS / name
    total = len(re.findall(r"^[a-z].*==", lock.read_text("utf-8"), re.MULTILINE))
    with Progress(f"setting up (once): installing {total} {what}") as progress:
        arguments = ["--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(lock)]
        _pip(arguments, progress, total)


def _pip(arguments: list[str], progress: Progress | None = None, total: int = 0) -> None:
    command = [stamp.PYTHON, "-m", "pip", "install", "--progress-bar=off", *arguments]
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    found = 0
    with (
        LOG.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            tail.append(line)
            if progress and line.startswith(REQUIREMENT_FOUND):
                found += 1
                progress.step(min(found, total), total)
    if process.returncode:
        raise StepFailed(
            "installing the dependencies failed; pip said:\n"
            + "".join(f"    {line[:200].rstrip()}\n" for line in tail).rstrip(),
            f"the whole log is {LOG}",
        )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
