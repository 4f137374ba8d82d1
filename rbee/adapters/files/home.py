"""The user's home folder, which there need not be: a container's user may have neither HOME nor an entry in passwd."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

from rbee.errors import InvalidConfigurationError

HINT: Final = "set HOME; or RBEE_CACHE for rbee's program and RBEE_HOME for its state, to folders that can be written"
_OWN: Final = ("~/.rbee", "~/.local/share/rbee", "~/.cache")
"""Where rbee's own folders begin, which variables can put elsewhere."""


def folder() -> Path | None:
    """Return the home folder: HOME where that is an absolute path, else that of the user's entry; None without."""
    if os.path.isabs(found := os.environ.get("HOME", "")):  # noqa: PTH117 (pathlib is no faster)
        return Path(found)
    try:
        found = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(found) if os.path.isabs(found) else None  # noqa: PTH117


def expanded(path: str | Path) -> Path:
    """Return a path whose `~` is replaced. Raises InvalidConfigurationError where there is no such home."""
    text = os.fspath(path)
    if text != "~" and not text.startswith("~/"):
        return _of_another(text)
    if (home := folder()) is None:
        raise InvalidConfigurationError(
            f"there is no home folder for {text}: HOME is not set, and user {os.getuid()} has no entry in /etc/passwd",
            hint=HINT
            if text == "~" or text.startswith(_OWN)
            else f"set HOME, or write the whole path in place of {text}",
            key="HOME",
        )
    return home / text[2:]


def cache() -> Path:
    """Return rbee's own cache folder, as build/launcher/__main__.py chooses it: RBEE_CACHE, or one in the user's.

    Raises InvalidConfigurationError where there is no home for it.
    """
    if own := os.environ.get("RBEE_CACHE"):
        return Path(own).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative one is to be ignored (XDG base directory specification): it could be any folder.
    return (base if base.is_absolute() else expanded("~/.cache")) / "rbee"


def found(path: str | Path) -> Path:
    """Return what `expanded` does, and where that raises a path at which nothing is: the file need not be there."""
    try:
        return expanded(path)
    except InvalidConfigurationError:
        return Path(os.devnull) / "nowhere"


def _of_another(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = text.partition("/")[0].removeprefix("~")
        raise InvalidConfigurationError(f"there is no user {name}, whose home folder {text} begins with") from None
