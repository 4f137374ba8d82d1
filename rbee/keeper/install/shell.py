"""Says how to put a folder into PATH, in the words of the user's shell (PURE)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

_FILES: Final = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "csh": "~/.cshrc", "tcsh": "~/.tcshrc"}
"""Shell → the file that it reads at each start; `~/.profile` for those that are not known."""
_PLAIN: Final = re.compile(r"[\w/.,+@-]+", re.ASCII)


def path_lines(folder: Path, home: Path, shell: str) -> list[str]:
    """Return the commands that put `folder` into PATH, now and for ever; `shell` is the path of the user's."""
    kind = Path(shell).name
    if kind == "fish":
        return [f"fish_add_path {_quote(folder, home)}"]
    value = _quote(folder, home, ":$PATH")
    now = f"setenv PATH {value}" if kind.endswith("csh") else f"export PATH={value}"
    return [now, f"echo {shlex.quote(now)} >> {_FILES.get(kind, '~/.profile')}"]


def _quote(folder: Path, home: Path, more: str = "") -> str:
    """Return the folder as a word of a shell, short where it is in the home folder; `more` is left to the shell."""
    inside = folder.relative_to(home) if folder.is_relative_to(home) else None
    plain = f"$HOME/{inside}" if inside is not None else str(folder)
    if _PLAIN.fullmatch(str(folder if inside is None else inside)):
        return f'"{plain}{more}"'
    return shlex.quote(str(folder)) + (f'"{more}"' if more else "")


def stands_in(folder: Path, path: str) -> bool:
    """Whether `path`, the value of PATH, names `folder`."""
    return any(Path(entry) == folder for entry in path.split(":") if entry)
