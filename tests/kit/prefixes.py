"""States of prompts as a model would make them: each is told by all tokens up to its end, so a wrong one is noticed."""

from __future__ import annotations

import os
import sys
import time
from hashlib import blake2b, shake_128
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.worker.prefix_store.disk_folder import DiskFolder
from rbee.worker.prefix_store.store import PrefixStore

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = blake2b(b"a model", digest_size=16).digest()


def state(salt: bytes, tokens: Sequence[int], start: int, end: int, size: int = 500) -> bytes:
    """Return about `size` bytes for a part."""
    return shake_128(repr((salt, list(tokens[:end]), start)).encode()).digest(size + tokens[0] % 7)


def put_all(store: PrefixStore, salt: bytes, tokens: Sequence[int], size: int = 500) -> None:
    """Put all that is missing of a prompt."""
    for start, end in store.missing(salt, tokens):
        store.put(salt, tokens, start, end, state(salt, tokens, start, end, size))


def restored(store: PrefixStore, salt: bytes, tokens: Sequence[int], size: int = 500) -> int:
    """Restore what there is of a prompt, and return how many tokens that were; not a byte of it may be wrong."""
    end = 0
    for part in store.parts(salt, tokens, store.longest(salt, tokens)):
        assert part.start in (0, end)
        assert part.data == state(salt, tokens, part.start, part.end, size)
        end = part.end
    return end


def flush(store: PrefixStore) -> None:
    """Wait until the disk has everything."""
    until = time.monotonic() + 20
    while store._unwritten:
        assert time.monotonic() < until
        time.sleep(0.002)


def prompt(number: int, length: int = 40) -> list[int]:
    """Return a prompt that has its first 8 tokens in common with the next one."""
    return [number // 2] * 8 + [number] * (length - 8)


def write_for_ever(root: Path) -> None:
    """Put prompts, in a process that is to be killed: never is one byte of what a new one finds wrong."""
    for process in range(10_000):
        first = os.getpid() * 7 % 1000
        store = PrefixStore(block=8, ram_bytes=0, disk=DiskFolder(root, MODEL, 3_000_000))
        for number in range(first, first + 30):
            put_all(store, b"", prompt(number), 20_000)
            if process or number > first + 3:
                flush(store)
        store.close()


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]))
