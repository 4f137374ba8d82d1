"""The file of the aliases that commands have made: the queen writes it, and the commands of its machine read it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import private
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

FILE: Final = "aliases.json"
MAX_BYTES: Final = 1_000_000


def load(state_dir: Path) -> dict[str, str]:
    """Return the aliases, name by name. A file that is damaged has none; what was in it is lost with the next one."""
    path = state_dir / FILE
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("the aliases in %s cannot be read: %s", path, exc)
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: target for name, target in found.items() if isinstance(target, str) and name and target}


def save(state_dir: Path, aliases: Mapping[str, str]) -> None:
    """Write all of them, whole or not at all. Raises StorageError."""
    path = state_dir / FILE
    text = json.dumps(dict(sorted(aliases.items())), ensure_ascii=False, indent=2) + "\n"
    try:
        private.make_private(state_dir)
        with private.written_beside(path, text.encode()) as scratch:
            scratch.rename(path)
    except OSError as exc:
        raise StorageError(f"{path} could not be written: {exc.strerror or exc}") from exc
