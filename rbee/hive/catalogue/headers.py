"""Remembers the headers of models as long as their files are the same: reading one takes up to half a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.hive.catalogue import folder, locate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.hive.catalogue.file_state import FileState
    from rbee.wire.gguf import ModelHeader

REMEMBERED: Final = 64


class Headers:
    """The headers that `read_file` has read."""

    def __init__(self, read_file: Callable[[Path], Awaitable[ModelHeader]] = locate.read_header) -> None:
        self._read_file = read_file
        self._known: dict[Path, tuple[tuple[FileState, ...], ModelHeader]] = {}

    async def read(self, path: Path) -> ModelHeader:
        """Return the header of the model whose first file is at `path`. Raises ModelLoadFailedError."""
        # Before it is read: a file that is replaced meanwhile is read again.
        states = await trio.to_thread.run_sync(folder.states_of, path)
        if states and (known := self._known.get(path)) is not None and known[0] == states:
            return known[1]
        header = await self._read_file(path)
        self._known.pop(path, None)
        if states:
            self._known[path] = (states, header)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return header
