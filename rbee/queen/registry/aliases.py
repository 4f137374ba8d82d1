"""Keeps the aliases of models: those of the settings, which stay, and those that commands make and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.adapters import model_aliases
from rbee.errors import InvalidRequestError, NotFoundError
from rbee.wire.administration import alias_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rbee.adapters.config import ModelSettings

MAX_ALIASES = 1000


class ModelAliases:
    """The aliases of a swarm, whose file is in the state folder; `on_change` is called after each change."""

    def __init__(self, settings: ModelSettings, state_dir: Path) -> None:
        self._settings = settings
        self.on_change: Callable[[], object] = lambda: None
        self._state_dir = state_dir
        self._made = model_aliases.load(state_dir)
        self._writing = trio.Lock()

    @property
    def of_settings(self) -> Mapping[str, str]:
        return self._settings.aliases

    def all(self) -> dict[str, str]:
        """Return what each name stands for."""
        return self._made | dict(self.of_settings)

    async def make(self, name: str, target: str) -> None:
        """Have a name stand for something; one that does already stands for that from now on.

        Raises InvalidRequestError for one of the settings, and StorageError.
        """
        self._check_ours(name)
        async with self._writing:
            kept = {one: value for one, value in self._made.items() if one != alias_names.named(name, self._made)}
            if len(kept) >= MAX_ALIASES:
                rule = f"at most {MAX_ALIASES} aliases"
                hint = "`rbee models alias NAME --remove` removes one"
                raise InvalidRequestError(f"there are {MAX_ALIASES} already", hint=hint, field="name", rule=rule)
            await self._write({**kept, name: target})

    async def remove(self, name: str) -> str:
        """Forget an alias; returns its name as it was made. Raises NotFoundError, InvalidRequestError, StorageError."""
        self._check_ours(name)
        async with self._writing:
            if (found := alias_names.named(name, self._made)) is None:
                raise NotFoundError(f"there is no alias {name}", hint="`rbee models alias` lists them", alias=name)
            await self._write({one: target for one, target in self._made.items() if one != found})
        return found

    def _check_ours(self, name: str) -> None:
        if (found := alias_names.named(name, self.of_settings)) is not None:
            raise InvalidRequestError(
                f"field name: the alias {found} is one of the settings",
                hint="change `aliases` under [models] in the settings file of the queen, and start it anew",
                field="name",
                rule="an alias that a command has made",
            )

    async def _write(self, aliases: dict[str, str]) -> None:
        await trio.to_thread.run_sync(model_aliases.save, self._state_dir, aliases)
        self._made = aliases
        self.on_change()
