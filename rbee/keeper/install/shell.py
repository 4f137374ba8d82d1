"""Composes the commands that add a folder to PATH, for the user's shell (PURE)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

_FILES: Final = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "csh": "~/.cshrc", "tcsh": "~/.tcshrc"}
"""Shell → the file that it reads at each start; `~/.profile` for other shells."""
_PLAIN: Final = re.compile(r"[\w/.,+@-]+", re.ASCII)


def path_lines(folder: Path, home: Path | None, shell: str) -> list[str]:
    """Return the commands that add `folder` to PATH, now and in new shells; `shell` is the path of the user's shell."""
    now = path_line(folder, home, shell)
    return [now] if Path(shell).name == "fish" else [now, f"echo {shlex.quote(now)} >> {start_file(shell)}"]


def path_line(folder: Path, home: Path | None, shell: str) -> str:
    """Return the command that adds `folder` to PATH."""
    kind = Path(shell).name
    if kind == "fish":
        return f"fish_add_path {_quote(folder, home)}"
    value = _quote(folder, home, ":$PATH")
    return f"setenv PATH {value}" if kind.endswith("csh") else f"export PATH={value}"


def start_file(shell: str) -> str:
    """Return the file that the user's shell reads at each start, as the user writes its name."""
    return _FILES.get(Path(shell).name, "~/.profile")


def _quote(folder: Path, home: Path | None, more: str = "") -> str:
    """Return the folder quoted for a shell, with $HOME if it is inside; the shell expands `more`."""
    inside = folder.relative_to(home) if home is not None and folder.is_relative_to(home) else None
    plain = f"$HOME/{inside}" if inside is not None else str(folder)
    if _PLAIN.fullmatch(str(folder if inside is None else inside)):
        return f'"{plain}{more}"'
    return shlex.quote(str(folder)) + (f'"{more}"' if more else "")


def is_in_path(folder: Path, path: str) -> bool:
    """Whether `path`, the value of PATH, names `folder`."""
    return any(Path(entry) == folder for entry in path.split(":") if entry)
