"""Has grammars tried in a process of their own before the worker compiles them, where they could end it."""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from typing import Final

import msgspec
import trio

from rbee.adapters.daemon import process
from rbee.errors import WorkerFailedError
from rbee.worker.output.grammar import TrialVerdict, is_whole_grammar, uncompilable

MOST_LENGTH: Final = 1_000_000
"""Characters of a grammar with all schemas in it; nothing as large can be compiled."""
TAME_LENGTH: Final = 8_000
"""Characters below which nothing refers to something else so often that it would overflow a stack."""
TAME_TEXT: Final = 3_000
"""The same where the grammar itself is a client's, and not only schemas in it."""
SECONDS: Final = 20.0
TRIALS: Final = 2
"""At the same time."""
MAX_KNOWN: Final = 64
_TOKENS: Final = re.compile(r"<\[[0-9,]+\]>")
_WILD: Final = re.compile(r'[0-9]{5}|Items"\s*:\s*[0-9]{3}')
"""Numbers that may be those of repetitions; a list is made of as many parts as it may have elements."""


class GrammarTrials:
    """What came of the trials of one worker."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(TRIALS)
        self._known: OrderedDict[bytes, str | None] = OrderedDict()
        """By the hash of a grammar, what it is in the library's own form, if that is another."""

    async def safe(self, grammar: str) -> str:
        """Return a grammar that the worker can compile. Raises InvalidRequestError.

        Takes 0.15 s for one that has to be tried, once.
        """
        if len(grammar) > MOST_LENGTH:
            raise uncompilable(f"it has more than {MOST_LENGTH} characters")
        if is_tame(grammar):
            return grammar
        key = sha256(grammar.encode()).digest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key] or grammar
        async with self._limiter:
            safe = await self._tried(grammar)
        self._known[key] = None if safe == grammar else safe
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return safe

    async def _tried(self, grammar: str) -> str:
        try:
            done = await process.run(["grammar-trial"], seconds=SECONDS, stdin=grammar.encode())
        except OSError as exc:
            raise WorkerFailedError(f"the process that tries grammars could not be started: {exc.strerror}") from exc
        if done is None or done.returncode or not done.stdout:
            raise uncompilable("it is too complex: compiling it takes too long, or too much memory")
        verdict = msgspec.json.decode(done.stdout, type=TrialVerdict)
        if verdict.reason:
            raise uncompilable(verdict.reason)
        return verdict.grammar


def is_tame(grammar: str) -> bool:
    """Return whether a grammar cannot end the process that compiles it."""
    if is_whole_grammar(grammar):
        return len(grammar) <= TAME_TEXT and "%json" not in grammar and not _WILD.search(_TOKENS.sub("", grammar))
    return len(grammar) <= TAME_LENGTH and not _WILD.search(_TOKENS.sub("", grammar))
