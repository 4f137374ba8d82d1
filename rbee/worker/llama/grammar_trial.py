"""Tries a grammar in a process of its own, within limits: the hidden command `rbee grammar-trial`.

A grammar comes from anyone who may use a model, and llguidance ends its process over some: a thousand references one
behind the other overflow its stack, and a list of 10^9 elements takes all memory. So `worker.serving.grammar_trials`
has what is large tried here first. stdin is the grammar, as `worker.output.grammar` writes it, and stdout a
TrialVerdict; without one, the process has ended over it.
"""

from __future__ import annotations

import random
import re
import resource
import sys
import threading
import time
from typing import Any, Final

import msgspec

from rbee.errors import InvalidRequestError
from rbee.worker.llama.constraint import reason_of, translated, why_no_schema
from rbee.worker.output.grammar import TrialVerdict

CPU_SECONDS: Final = 4
MEMORY_BYTES: Final = 1 << 30
"""Of address space, beside what the process has."""
STACK_BYTES: Final = 1_500_000
"""Less than a thread has in any worker: 8 MB mostly, and 2 MB where the stack is not limited."""
STEPS: Final = 24
MOST_STEP_SECONDS: Final = 0.5
"""All streams of the worker wait for each of its steps."""
_MOST_TOKEN: Final = 1_000_000
_TOKENS: Final = re.compile(r"<\[([0-9,\s-]+)\]>")
_NAMES: Final = re.compile(r"<[^<>\s\[\]]{1,80}>")


class _Bytes:
    """A vocabulary with a token for each byte, and the control tokens that a grammar names."""

    def __init__(self, grammar: str) -> None:
        numbers = [int(number) for found in _TOKENS.findall(grammar) for number in re.findall("[0-9]{1,7}", found)]
        least = max((number for number in numbers if number < _MOST_TOKEN), default=0) + 1
        self.tokens = [bytes([value]) for value in range(256)]
        names = [b"\xff" + name.encode() for name in dict.fromkeys(_NAMES.findall(grammar))]
        fill = [b"\xff<%d>" % number for number in range(least - 256 - len(names))]
        self.tokens += [*names, *fill, b"\xff<end>"]
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def tried(grammar: str) -> TrialVerdict:
    """Compile a grammar, and write the beginning of a text under it."""
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    try:
        grammar = translated(grammar)
    except InvalidRequestError as exc:
        return TrialVerdict(reason=exc.message.partition("kept to: ")[2])
    vocabulary = _Bytes(grammar)
    matcher = LLMatcher(LLTokenizer(TokenizerWrapper(vocabulary)), grammar, log_level=0)
    if matcher.is_error():
        return TrialVerdict(reason=why_no_schema(grammar) or reason_of(matcher.get_error()))
    chosen = random.Random(0)  # noqa: S311 (any text will do)
    for _ in range(STEPS):
        began = time.thread_time()
        mask: Any = matcher.compute_bitmask()
        if matcher.is_error():
            return TrialVerdict(reason=reason_of(matcher.get_error()))
        if (seconds := time.thread_time() - began) > MOST_STEP_SECONDS:
            return TrialVerdict(reason=f"it is too complex: a token takes {seconds:.1f} s")
        allowed = [token for token in range(vocabulary.eos_token_id) if mask[token // 8] >> token % 8 & 1]
        if not allowed:
            break
        matcher.consume_token(chosen.choice(allowed))
    return TrialVerdict(grammar=grammar)


def main(_argv: list[str]) -> int:
    """Run the command."""
    grammar = sys.stdin.buffer.read().decode()
    pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: PTH123, SIM115
    for kind, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    threading.stack_size(STACK_BYTES // 4096 * 4096)
    verdicts: list[TrialVerdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(tried(grammar)))
    thread.start()
    thread.join()
    sys.stdout.buffer.write(msgspec.json.encode(verdicts[0]) if verdicts else b"")
    return 0 if verdicts else 1
