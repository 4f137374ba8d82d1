"""Tells whether this process still has a working folder, without which a relative path leads nowhere."""

from __future__ import annotations

import os
from typing import Final

MESSAGE: Final = "the working folder does not exist any more, and a relative path needs it"
HINT: Final = "cd to another folder, or give absolute paths"


def is_gone() -> bool:
    """Whether the folder was removed, or moved out of reach."""
    try:
        os.getcwd()  # noqa: PTH109 (pathlib is slow to import)
    except OSError:
        return True
    return False


def can_do_without(arguments: list[str]) -> bool:
    """Leave a folder that is gone for one that stays, unless the settings file of a daemon is named relative to it."""
    if not is_gone():
        return True
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, _, file = word.partition("=")
        if option == "--config" and not (file or following).startswith(("/", "~")):
            return False
    os.chdir("/")
    return True
