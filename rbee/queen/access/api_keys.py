"""The API keys of one queen: made, counted and revoked in memory, and written down soon."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.adapters.store.write_behind import WriteBehind
from rbee.concurrency.contained import keep_running
from rbee.errors import InvalidRequestError, NotFoundError
from rbee.queen.access.identity import RESERVED, CallerIdentity
from rbee.queen.access.key_table import StoredKey, counted, exists
from rbee.wire.administration.keys import ApiKey, KeyRequest, NewKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.queen.access.key_table import KeyTable

log = logging.getLogger(__name__)

PREFIX: Final = "rbee_k_"
_SHOWN: Final = len(PREFIX) + 4
_BYTES: Final = 32
_MAX_KEY: Final = 512
"""Characters of what may be a key; more is not even hashed."""
COUNT_SECONDS: Final = 5.0
"""What keys were used for is written down this often, at most."""


class ApiKeys:
    """The keys that are good; `run` writes down what they were used for. `now` returns Unix seconds."""

    def __init__(self, table: KeyTable, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now
        self._by_hash: dict[str, StoredKey] = {}
        self._by_name: dict[str, StoredKey] = {}
        self._unremoved: set[str] = set()
        """Names of keys that are good for nothing, and still on the disk: it did not take that, or they are damaged."""
        self._used: dict[str, StoredKey] = {}
        self._was_used = trio.Event()
        self._closed = trio.Event()
        self._writer = WriteBehind(table.transact)

    async def load(self) -> None:
        """Read the keys from the disk."""
        for key in await self._table.rows():
            self._take(key)
        self._unremoved = await self._table.names() - self._by_name.keys()

    def _take(self, key: StoredKey) -> None:
        self._by_hash[key.hash] = self._by_name[key.info.name] = key

    def all(self) -> list[ApiKey]:
        """Return the keys by name, expired ones too."""
        return [self._by_name[name].info for name in sorted(self._by_name)]

    async def create(self, request: KeyRequest) -> NewKey:
        """Make a key: 32 random bytes. Raises InvalidRequestError for a name that is taken."""
        if request.name.lower() in RESERVED:
            raise InvalidRequestError(
                f"field name: {request.name} stands for callers without a key", field="name", rule="another name"
            )
        if request.name in self._by_name or request.name in self._unremoved:
            raise exists(request.name)
        key = PREFIX + secrets.token_urlsafe(_BYTES)
        now = self._now()
        info = ApiKey(
            name=request.name,
            shown=key[:_SHOWN],
            models=sorted(set(request.models)),
            created_unix=now,
            expires_unix=None if request.expires_s is None else now + request.expires_s,
        )
        stored = StoredKey(_hash(key), info)
        await self._table.add(stored)
        self._take(stored)
        log.info("the key %s was made", request.name)
        return NewKey(key=key, info=msgspec.structs.replace(info))

    async def revoke(self, name: str, on_revoked: Callable[[], object] = lambda: None) -> None:
        """Make a key good for nothing, at once, and forget it; `on_revoked` is called between. Raises NotFoundError.

        Where the disk does not take that, which raises StorageError, the key is good again for the next queen.
        """
        if (key := self._by_name.pop(name, None)) is not None:
            del self._by_hash[key.hash]
            self._used.pop(key.hash, None)
            self._unremoved.add(name)
            log.info("the key %s was revoked", name)
        elif name not in self._unremoved:
            raise _not_found(name, self._by_name)
        on_revoked()
        await self._table.remove(name)
        self._unremoved.discard(name)

    def is_good(self, identity: CallerIdentity) -> bool:
        """Whether a caller may still ask: its key may be revoked by now, and its name that of a new one."""
        return identity.kind != "key" or self._good(identity.key_hash) is not None

    def identify(self, shown: str) -> CallerIdentity | None:
        """Return the caller that a key names; None where it is unknown, was revoked, or has expired.

        It is looked up by its hash: how long that takes says nothing of a key's characters.
        """
        if not shown.startswith(PREFIX) or len(shown) > _MAX_KEY:
            return None
        if (key := self._good(_hash(shown))) is None:
            return None
        return CallerIdentity("key", key.info.name, models=frozenset(key.info.models), key_hash=key.hash)

    def _good(self, key_hash: str) -> StoredKey | None:
        """Return the key of this hash, unless it has expired."""
        key = self._by_hash.get(key_hash)
        if key is None or (key.info.expires_unix is not None and key.info.expires_unix <= self._now()):
            return None
        return key

    def count(self, name: str, *, prompt_tokens: int = 0, cached_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Count a request of a key that is over; nothing happens where the key was revoked meanwhile."""
        if (key := self._by_name.get(name)) is None:
            return
        info = key.info
        info.requests += 1
        info.last_used_unix = self._now()
        info.prompt_tokens += prompt_tokens
        info.cached_tokens += cached_tokens
        info.generated_tokens += generated_tokens
        self._used[key.hash] = key
        self._was_used.set()

    def close(self) -> None:
        """Have `run` return once everything is written, or has been tried once more."""
        self._closed.set()
        self._was_used.set()

    async def run(self) -> None:
        """Write down what the keys are used for, until `close`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer.run)
            await keep_running("counting what keys are used for", self._write_regularly)
            self._writer.close()

    async def _write_regularly(self) -> None:
        is_last = False
        while not is_last:
            await self._was_used.wait()
            self._was_used = trio.Event()
            with trio.move_on_after(COUNT_SECONDS):
                await self._closed.wait()
            is_last = self._closed.is_set()
            used, self._used = self._used, {}
            for name, key in used.items():
                self._writer.put(name, counted(key))


def _hash(key: str) -> str:
    """Return what a key is known by. It is random, so that nobody can try all keys there may be: no salt is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _not_found(name: str, known: dict[str, StoredKey]) -> NotFoundError:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = (f"did you mean {near[0]}? " if near else "") + "`rbee keys list` shows the keys"
    return NotFoundError(f"there is no key {name}", hint=hint, name=name)
