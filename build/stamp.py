"""Checks whether the checkout's .venv is up to date; runs at every start, so it imports nothing heavy."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")

RUNTIME = (
    *("build/locks/runtime.txt", "build/locks/llama.txt", "build/engine.toml"),
    *("build/logits.c", "build/patch_attention.py", "build/patch_barrier.py", "build/patch_clear.py"),
)
ZIPAPP = ("build/locks/zipapp.txt",)
DEV = ("build/locks/dev.txt",)


def is_current(inputs: tuple[str, ...] = RUNTIME) -> bool:
    """Whether .venv was made from these files as they are now."""
    try:
        with open(_stamp(inputs), "rb") as stamp:
            return stamp.read() == _content(inputs)
    except OSError:
        return False


def write(inputs: tuple[str, ...]) -> None:
    """Marks .venv as made from these files; the last step of a set-up, which an interrupted one never reaches."""
    unfinished = _stamp(inputs) + ".new"
    with open(unfinished, "wb") as stamp:
        stamp.write(_content(inputs))
    os.replace(unfinished, _stamp(inputs))


def _stamp(inputs: tuple[str, ...]) -> str:
    return os.path.join(VENV, "made-from-" + os.path.basename(inputs[0]))


def _content(inputs: tuple[str, ...]) -> bytes:
    # The text itself, not a digest: comparing 100 kB is faster than importing hashlib.
    found = []
    for name in inputs:
        with open(os.path.join(ROOT, name), "rb") as source:
            found.append(source.read())
    return b"\0".join(found)
