"""The engine's back-end in llama.cpp: one KV cache for all sequences, and the logits of the last batch."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from rbee.errors import ModelLoadFailedError
from rbee.worker.engine.backend import (
    DecodeAbortedError,
    EngineFailedError,
    NoRoomError,
    SavedState,
    StateMismatchError,
)
from rbee.worker.llama.context_params import BATCH, SCORED, context_params
from rbee.worker.llama.operations import Operations
from rbee.worker.llama.sampling import SamplerChain
from rbee.worker.llama.state_key import state_key
from rbee.worker.llama.threadpool import Threadpool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.common import CacheType, Sampling
    from rbee.worker.engine.backend import BatchPart, Constraint
    from rbee.worker.llama.model import Model

log = logging.getLogger(__name__)

POLL: Final = 1
"""How long compute threads spin for the next step, in ggml's unit of about 2 ms.

That bridges the gap between two steps. ggml's own 50 spins on for 100 ms after the last one, and took a third of the
speed where anything else wanted the processors: our own HTTP, or another worker.
"""
STEP_WEIGHTS: Final = 40_000_000_000
"""Bytes of weights, each counted once a token, that a thread of a slow processor multiplies in a second."""
MIN_STEP: Final = 64
"""Tokens of a prompt below which reading them at once saves little."""
LAYER_OPERATIONS: Final = 20
"""About how many operations of ggml a layer is: 17 for Llama, some more where a layer has more parts."""
MOST_SEQUENCES: Final = 256
"""LLAMA_MAX_SEQ. A cell of a unified cache has a bit for each, whatever `n_seq_max` is, which only decodes and saved
states are bound to (pinned by tests/net/worker/test_context.py)."""
_DECODED, _NO_ROOM, _ABORTED = 0, 1, 2
_INVALID: Final = -1
_REFUSED: Final = "cache"
"""Stands in llama.cpp's lines about a type that it does not keep a model's keys or values in."""


def prompt_step(weights: int, threads: int) -> int:
    """Return how many tokens of a prompt are read at once: about a second's worth on a slow processor."""
    fitting = STEP_WEIGHTS * threads // max(weights, 1)
    return max(MIN_STEP, min(BATCH, fitting // MIN_STEP * MIN_STEP))


class Context:
    """A context with `slots` sequences: an `engine.backend.Backend`, which documents it."""

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        length: int,
        threads: int,
        longest: int | None = None,
        kv: CacheType = "f16",
        poll: int = POLL,
    ) -> None:
        """Make the context, with room for `length` tokens of each sequence, or `longest` of one.

        Raises ModelLoadFailedError where the memory does not suffice, or the engine does not keep this model's so.
        """
        self._llama = model.llama
        self._lib = lib = model.llama.functions
        self.vocabulary = model
        self.slots = slots
        cells = slots * length
        self.length = max(length, min(longest or length, cells))
        self.pool = cells if model.keeps_tokens else sys.maxsize
        self.trained_length = model.trained_length
        self.batch = min(BATCH, slots * length)  # llama.cpp's own bound: it ends the process above it
        self.scored_step = SCORED
        self.threads = threads
        self.prompt_step = prompt_step(model.size_bytes, threads)
        self.can_cut = not model.is_recurrent
        # A sequence of a recurrent model costs a whole state, and cannot be cut.
        scratch = 1 if self.can_cut else 0
        self._scratch = slots
        self.spare = range(slots + scratch, MOST_SEQUENCES) if self.can_cut else range(0)
        params = context_params(lib, slots=slots, length=length, scratch=scratch, kv=kv)
        self.origin = state_key(model, params)
        params.n_threads = params.n_threads_batch = threads
        self._operations = Operations()
        self._operations.attach(params, lib.ggml_abort_callback)
        self._operations_before = self._operations_of_decode = 0
        self._layers = lib.llama_model_n_layer(model.handle)
        self._llama.complaints.clear()
        handle = lib.llama_init_from_model(model.handle, params)
        if not handle:
            if kv != "f16" and any(_REFUSED in line for line in self._llama.complaints.lines()):
                raise ModelLoadFailedError(
                    f"the engine does not keep this model's context in {kv}: "
                    f"{self._llama.complaints.lines()[-1].rpartition(': ')[2]}",
                    hint='`kv = "f16"` under [worker] takes any model',
                    reason="kv",
                )
            raise ModelLoadFailedError(
                f"not enough memory for {slots} slots of {length} tokens",
                hint="use fewer slots, or a smaller context",
                reason="out_of_memory",
            )
        self._handle = handle
        self._is_open = True
        self._memory = lib.llama_get_memory(handle)
        self._batch = lib.llama_batch_init(BATCH, 0, 1)
        for row in range(BATCH):
            self._batch.n_seq_id[row] = 1
        self._threadpool = Threadpool(self._llama, threads, poll=poll)
        self._threadpool.attach(handle)

    def new_sampler(self, options: Sampling, constraint: Constraint | None = None) -> SamplerChain:
        return SamplerChain(self._lib, self._handle, options, self.vocabulary, constraint)

    def set_threads(self, count: int) -> None:
        # llama.cpp takes the second number for each batch of more than one token, as that of several texts is.
        self._lib.llama_set_n_threads(self._handle, count, count)

    def decode(self, parts: Sequence[BatchPart]) -> list[int]:
        self._batch.n_tokens = 0
        rows = [self._add(part) for part in parts]
        operations = self._operations
        self._operations_before = before = operations.count()
        with self._llama.complaints.muted_while(lambda: operations.are_aborted):
            code = self._lib.llama_decode(self._handle, self._batch)
        if code == _DECODED:
            if not operations.are_aborted:
                self._operations_of_decode = operations.count() - before
            return rows
        if code == _NO_ROOM:
            raise NoRoomError
        if code == _ABORTED:
            raise DecodeAbortedError
        if code == _INVALID:
            log.error("llama.cpp refused a batch of %d tokens: a bug of the engine loop", self._batch.n_tokens)
        raise EngineFailedError(
            "the engine failed while decoding", code=code, complaints=self._llama.complaints.lines()[-3:]
        )

    def _add(self, part: BatchPart) -> int:
        """Append tokens to the batch; returns the row of the last one."""
        batch = self._batch
        first = row = batch.n_tokens
        ids, positions, sequences, outputs = batch.token, batch.pos, batch.seq_id, batch.logits
        for row, token in enumerate(part.tokens, first):
            ids[row] = token
            positions[row] = part.position + row - first
            sequences[row][0] = part.sequence
            outputs[row] = part.wants_all
        outputs[row] = part.wants_logits or part.wants_all
        batch.n_tokens = row + 1
        return row

    def decoded(self) -> float:
        if self._operations.are_aborted:
            return 0.0
        count = max(0, self._operations.count() - self._operations_before)
        # The graph has the same operations whatever the batch, so the last decode says how many; the first one moves on
        # without ever being done.
        return min(1.0, count / (self._operations_of_decode or count + LAYER_OPERATIONS * self._layers))

    def abort(self) -> None:
        self._operations.abort()

    def clear_abort(self) -> None:
        self._operations.clear()
        self._operations_before = 0

    def copy(self, source: int, target: int, length: int) -> bool:
        end = self._end(source)
        if source == target or not 0 < length <= end:
            raise ValueError(f"cannot copy {length} of {end} tokens of sequence {source} to {target}")
        self.remove(target)
        if not self.can_cut and length < end:
            return False  # llama.cpp would copy the state after the last token
        # Cells of a window that has moved on are gone.
        if self._first(source) > max(0, length - self.vocabulary.window):
            return False
        first, last = (0, length) if self.can_cut else (-1, -1)
        self._lib.llama_memory_seq_cp(self._memory, source, target, first, last)
        return True

    def remove(self, sequence: int, start: int = 0) -> bool:
        return self._lib.llama_memory_seq_rm(self._memory, sequence, start or -1, -1)

    def save(self, sequence: int, start: int = 0, end: int | None = None) -> SavedState:
        length = self._end(sequence)
        end = length if end is None else end
        if not 0 <= start <= end <= length:
            raise ValueError(f"cannot save the tokens {start} to {end} of {length} of sequence {sequence}")
        if (start, end) == (0, length) and sequence not in self.spare:
            return SavedState(self.origin, 0, end, self._data(sequence))
        if not self.can_cut:
            raise ValueError("this model's state can only be saved whole")
        # llama.cpp saves whole sequences, and none of a number above n_seq_max; a copy costs some bits.
        self.remove(self._scratch)
        self._lib.llama_memory_seq_cp(self._memory, sequence, self._scratch, start, end)
        try:
            return SavedState(self.origin, start, end, self._data(self._scratch))
        finally:
            self.remove(self._scratch)

    def _data(self, sequence: int) -> bytes:
        size = self._lib.llama_state_seq_get_size(self._handle, sequence)
        data = bytearray(size)
        written = self._lib.llama_state_seq_get_data(self._handle, _pointer(data), size, sequence)
        return bytes(memoryview(data)[:written])

    def restore(self, sequence: int, state: SavedState) -> None:
        if state.start and state.start != self._end(sequence):
            raise ValueError(f"a state that starts at {state.start} follows no {self._end(sequence)} tokens")
        into = self._scratch if state.start else sequence
        self.remove(into)
        # llama.cpp compares the shapes of layers alone: a state of another model of this shape would give nonsense.
        if state.origin != self.origin:
            raise StateMismatchError("the state was saved with another model")
        try:
            self._set_data(into, state)
            if state.start:
                self._lib.llama_memory_seq_cp(self._memory, into, sequence, state.start, state.end)
        finally:
            if state.start:
                self.remove(into)

    def _set_data(self, sequence: int, state: SavedState) -> None:
        size = len(state.data)
        self._llama.complaints.clear()
        read = self._lib.llama_state_seq_set_data(self._handle, _pointer(state.data), size, sequence)
        if read == size and self._end(sequence) == state.end and self._begins(sequence, state):
            return
        self.remove(sequence)
        lines = self._llama.complaints.lines()
        if any("available cells" in line for line in lines):
            raise NoRoomError
        raise StateMismatchError("; ".join(lines) or "the state is not what was saved")

    def _begins(self, sequence: int, state: SavedState) -> bool:
        """Whether a sequence has all of a restored state that decoding goes on from."""
        window = self.vocabulary.window
        return not self.can_cut or self._first(sequence) <= max(state.start, state.end - window if window else 0)

    def _first(self, sequence: int) -> int:
        """Return the first position that the memory holds of a sequence; -1 where it holds none."""
        return self._lib.llama_memory_seq_pos_min(self._memory, sequence)

    def _end(self, sequence: int) -> int:
        """Return the length of what the memory holds of a sequence."""
        return self._lib.llama_memory_seq_pos_max(self._memory, sequence) + 1

    def close(self) -> None:
        """Free the memory and end the compute threads."""
        if self._is_open:
            self._is_open = False
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._handle)
            self._threadpool.close()


def _pointer(data: bytes | bytearray | memoryview) -> Any:
    """Return data as an argument of llama.cpp, without a copy where that can be."""
    if isinstance(data, bytes):
        return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
    array = ctypes.c_uint8 * len(data)
    is_fixed = isinstance(data, memoryview) and data.readonly
    return array.from_buffer_copy(data) if is_fixed else array.from_buffer(data)
