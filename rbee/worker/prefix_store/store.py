"""Keeps what the memory held of prompts, so that it need not be computed again: in RAM, then on the disk.

The engine's thread calls the store between two decode steps, so nothing takes long there: files are written by a thread
of the store's own. What is put is on the disk as soon as that thread has come to it, so it survives the worker, and its
crash; RAM holds what was used last.

Measured on two busy cores, 1,024 tokens of 23 KB (23.6 MB) in blocks of 64: `longest` and `missing` 0.04 ms, `put` 0.05
ms for each block, `parts` 0.1 ms from RAM; from the disk's cache 55 ms, of which the checksum takes 33 and memory of
our own 15. The thread writes them in 80 to 180 ms.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.concurrency.contained import contained
from rbee.worker.engine.state_store import StoredPart
from rbee.worker.prefix_store.keys import block_keys, packed, whole_keys
from rbee.worker.prefix_store.recent_parts import RecentParts
from rbee.worker.prefix_store.unwritten import UnwrittenParts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rbee.worker.prefix_store.disk_folder import DiskFolder

CLOSE_SECONDS: Final = 5.0
"""How long the end of the worker waits for what is not on the disk yet."""
LOOK_SECONDS: Final = 1.0
"""The least time between two looks at how much memory there is, and at what others have put on the disk."""
IDLE_SECONDS: Final = 10.0
"""And while nothing is asked of the store, but RAM is taken that others may come to need."""


class StoreFigures(NamedTuple):
    """What the store holds in bytes, and what has become of questions and parts, as counts since its start."""

    ram_bytes: int
    disk_bytes: int
    hits: int
    misses: int
    from_ram: int
    from_disk: int
    damaged: int


class PrefixStore:
    """Parts of prompts: an `engine.state_store.StateStore`, for the engine's thread; only `figures` is for any thread.

    With `block` a part is a run of so many tokens that begins at a multiple of it; without, it is all from the
    beginning. `spare_ram` says how many more bytes of RAM may be taken, or less than none: it is asked now and then in
    the store's thread, and `ram_bytes` is the most even so. Without a disk RAM is all there is.
    """

    def __init__(
        self,
        *,
        block: int | None,
        ram_bytes: int,
        disk: DiskFolder | None = None,
        spare_ram: Callable[[], int] | None = None,
    ) -> None:
        self._block = block
        self._ram_bytes = ram_bytes
        self._disk = disk
        self._spare_ram = spare_ram
        self._ram = RecentParts(ram_bytes)
        self._unwritten = UnwrittenParts()
        self._used: dict[bytes, None] = {}
        self._hits = self._misses = self._from_ram = self._from_disk = 0
        # Guards all of the above; it is held for microseconds.
        self._changed = threading.Condition()
        self._is_closed = False
        self._must_look = False
        self._look_at = self._closing_until = 0.0
        # The process may end without it, whatever the disk does.
        self._thread = threading.Thread(target=self._run, name="prefix store", daemon=True)
        self._thread.start()

    def longest(self, salt: bytes, tokens: Sequence[int]) -> int:
        """Return how many of a prompt's tokens could be restored, from what is known to be there: nothing is read."""
        known = 0
        keys = list(self._keys(salt, tokens))
        with self._changed:
            for end, key in keys:
                if self._holds(key):
                    known = end
                elif self._block is not None:
                    break
            self._hits += known > 0
            self._misses += known == 0
            if known < len(tokens) and self._disk is not None and not self._must_look:
                self._must_look = True  # another worker of this model may have put more there by the next time
                self._changed.notify()
        return known

    def parts(self, salt: bytes, tokens: Sequence[int], end: int) -> Iterator[StoredPart]:
        """Yield the parts that make up the first `end` tokens, in order; `end` is what `longest` has returned, or less.

        It ends early where one has gone, or turns out to be damaged: whatever has been yielded is right. The engine may
        do other things between two parts; those from the disk take some milliseconds each.
        """
        keys = [key for at, key in self._keys(salt, tokens, end) if self._block is not None or at == end]
        self._use(keys)
        for key in keys:
            if (part := self._find(key)) is None:
                return
            yield part

    def missing(self, salt: bytes, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Return the starts and ends of what is not held of a prompt, and can be put: blocks, or all of it."""
        whole = [len(tokens)] if self._block is None else None
        keys = list(self._keys(salt, tokens, whole=whole)) if tokens else []
        with self._changed:
            return [(end - (self._block or end), end) for end, key in keys if not self._holds(key)]

    def put(self, salt: bytes, tokens: Sequence[int], start: int, end: int, data: bytes) -> None:
        """Keep what the memory held of the tokens from `start` to `end`, of which the store gets all before `end` too.

        `data` must not change any more. Raises ValueError where that is no part.
        """
        starts = 0 if self._block is None else end - self._block
        if start != starts or not 0 <= start < end <= len(tokens) or (self._block is not None and end % self._block):
            raise ValueError(f"the tokens from {start} to {end} of {len(tokens)} are no part")
        keys = [key for at, key in self._keys(salt, tokens, end, whole=[end])]
        part = StoredPart(start, end, data)
        with self._changed:
            if not self._holds(keys[-1]):
                if self._disk is not None:
                    self._unwritten.put(keys[-1], part)
                    self._changed.notify()
                for gone in self._ram.put(keys[-1], part):
                    self._unwritten.keep_alone(gone)
        self._use(keys)

    @property
    def takes_more(self) -> bool:
        """Whether a part that is put now will be kept; else the disk has to catch up first."""
        return self._disk is None or self._unwritten.takes_more

    def figures(self) -> StoreFigures:
        disk = self._disk
        with self._changed:
            return StoreFigures(
                self._ram.bytes + self._unwritten.own_bytes,
                0 if disk is None else disk.bytes,
                self._hits,
                self._misses,
                self._from_ram,
                self._from_disk,
                0 if disk is None else disk.damaged,
            )

    def close(self) -> None:
        """Write what is not on the disk yet, for some seconds at most, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._closing_until = time.monotonic() + CLOSE_SECONDS
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _keys(
        self, salt: bytes, tokens: Sequence[int], end: int | None = None, *, whole: list[int] | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield ends and keys of the parts that there may be of the first `end` tokens, in order."""
        tokens = packed(tokens if end is None else tokens[:end])
        if self._block is not None:
            return block_keys(salt, tokens, self._block)
        return whole_keys(salt, tokens, whole or self._lengths())

    def _lengths(self) -> list[int]:
        with self._changed:
            found = {*self._ram.ends(), *self._unwritten.ends()}
        return sorted(found.union(() if self._disk is None else self._disk.lengths()))

    def _holds(self, key: bytes) -> bool:
        return key in self._ram or key in self._unwritten or (self._disk is not None and self._disk.holds(key))

    def _find(self, key: bytes) -> StoredPart | None:
        with self._changed:
            if (part := self._ram.get(key) or self._unwritten.get(key)) is not None:
                self._from_ram += 1
                return part
        part = None if self._disk is None else self._disk.read(key)
        with self._changed:
            if part is None:
                self._must_look = True  # another worker may have removed more
                return None
            self._from_disk += 1
            for gone in self._ram.put(key, part):
                self._unwritten.keep_alone(gone)
        return part

    def _use(self, keys: list[bytes]) -> None:
        """Remember that these parts were used: the first ones last, since the others are of no use without them."""
        with self._changed:
            self._ram.use(reversed(keys))
            if not self._used:
                # Not each time: a thread that wakes up takes the GIL, milliseconds where the machine is busy.
                self._changed.notify()
            self._used.update(dict.fromkeys(keys))

    # From here on everything runs in the store's own thread.

    def _run(self) -> None:
        while self._wait_for_work():
            with contained("keeping a prompt"):
                self._write_one()
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                with contained("looking after kept prompts"):
                    self._look()

    def _wait_for_work(self) -> bool:
        """Wait for something to do; returns False when the thread has to end."""
        with self._changed:
            while True:
                if self._is_closed:
                    return bool(self._unwritten) and time.monotonic() < self._closing_until
                if self._unwritten:
                    return True
                wait = None
                if self._used or self._must_look:
                    wait = self._look_at - time.monotonic()
                elif self._spare_ram is not None and self._ram.bytes:
                    wait = self._look_at + IDLE_SECONDS - time.monotonic()
                if wait is not None and wait <= 0:
                    return True
                self._changed.wait(wait)

    def _write_one(self) -> None:
        with self._changed:
            first = self._unwritten.first()
        if first is None or self._disk is None:
            return
        try:
            self._disk.write(*first)
        finally:
            with self._changed:
                self._unwritten.remove(first[0])

    def _look(self) -> None:
        """See what was used, what others have put on the disk, and how much memory there is."""
        with self._changed:
            used, self._used = self._used, {}
            self._must_look = False
        if self._disk is not None:
            self._disk.mark_used(used)
            self._disk.refresh()
        if self._spare_ram is not None:
            spare = self._spare_ram()
            with self._changed:
                self._ram.limit = max(0, min(self._ram_bytes, self._ram.bytes + spare))
                for gone in self._ram.shrink():
                    self._unwritten.keep_alone(gone)
