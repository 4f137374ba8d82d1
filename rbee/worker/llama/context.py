"""The engine's working memory: batches decoded into the KV cache of all sequences, and the logits they leave."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING, Any, Final

from rbee.errors import ModelLoadFailedError, WorkerFailedError
from rbee.worker.llama import library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.worker.llama.model import Model

log = logging.getLogger(__name__)

BATCH: Final = 512
"""Tokens in one decode; also llama.cpp's physical batch, so that an aborted decode leaves nothing half done."""
POLL: Final = 1
"""How long compute threads spin for the next step, in ggml's unit of about 2 ms.

That bridges the gap between two steps. ggml's own 50 spins on for 100 ms after the last one, and took a third of the
speed where anything else wanted the processors: our own HTTP, or another worker.
"""
_DECODED, _NO_ROOM, _ABORTED = 0, 1, 2
_INVALID: Final = -1


class NoRoomError(Exception):
    """The KV cache has no cells left for this batch; nothing was changed."""


class DecodeAbortedError(Exception):
    """`abort` was called during the decode; the batch's tokens are not in the cache."""


class EngineFailedError(WorkerFailedError):
    """llama.cpp failed in a way that it does not recover from; a new process may."""

    exit_code = 70  # EX_SOFTWARE: the hive can tell it from an ordinary failure


class Context:
    """A context with `slots` sequences of `length` tokens each. One thread at a time; `abort` from any."""

    def __init__(self, model: Model, *, slots: int, length: int, threads: int, poll: int = POLL) -> None:
        """Make the context. Raises ModelLoadFailedError where the memory does not suffice."""
        self._lib = lib = library.api()
        self.slots = slots
        self.length = length
        self.threads = threads
        params = lib.llama_context_default_params()
        params.n_ctx = slots * length
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = slots
        # One output a sequence: room for logits of every token of a batch would be 65 MB with 32 000 tokens.
        params.n_outputs_max = slots
        params.n_threads = params.n_threads_batch = threads
        # Sequences draw on one pool of cells, and share those of a common prefix.
        params.kv_unified = True
        params.no_perf = True
        # ggml calls this between any two operations of a decode, in the thread that computes. A Python callback would
        # take the GIL each time; strlen does not: it returns a length whose low byte, all that a C bool is, says
        # whether the string at `data` is empty. So one byte in a buffer of ours aborts a decode.
        self._abort = ctypes.create_string_buffer(2)
        params.abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort)
        library.complaints.clear()
        self._handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise ModelLoadFailedError(
                f"not enough memory for {slots} slots of {length} tokens",
                hint="use fewer slots, or a smaller context",
                reason="out_of_memory",
            )
        self._memory: Any = lib.llama_get_memory(self._handle)
        self._batch: Any = lib.llama_batch_init(BATCH, 0, 1)
        for place in range(BATCH):
            self._batch.n_seq_id[place] = 1
        self._threadpool = library.Threadpool(threads, poll=poll)
        if self._threadpool.handle is not None:
            # Not among the functions that llama_cpp binds.
            attach = lib._lib.llama_attach_threadpool
            attach.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
            attach.restype = None
            attach(self._handle, self._threadpool.handle, self._threadpool.handle)

    def set_threads(self, decoding: int) -> None:
        """Choose how many threads compute a step of single tokens; prompts are always read by all."""
        self._lib.llama_set_n_threads(self._handle, decoding, self.threads)

    def start_batch(self) -> None:
        """Begin an empty batch."""
        self._batch.n_tokens = 0

    def add(self, sequence: int, tokens: Sequence[int], position: int, *, wants_logits: bool) -> int:
        """Append tokens of one sequence from `position` on; returns the place of the last one in the batch.

        With `wants_logits` the next token can be sampled at that place.
        """
        batch = self._batch
        first = place = batch.n_tokens
        ids, positions, sequences, outputs = batch.token, batch.pos, batch.seq_id, batch.logits
        for place, token in enumerate(tokens, first):
            ids[place] = token
            positions[place] = position + place - first
            sequences[place][0] = sequence
            outputs[place] = 0
        outputs[place] = wants_logits
        batch.n_tokens = place + 1
        return int(place)

    def decode(self) -> None:
        """Decode the batch, without the GIL.

        Raises NoRoomError, DecodeAbortedError, or EngineFailedError when the context is of no use any more.
        """
        code = self._lib.llama_decode(self._handle, self._batch)
        if code == _DECODED:
            return
        if code == _NO_ROOM:
            raise NoRoomError
        if code == _ABORTED:
            raise DecodeAbortedError
        if code == _INVALID:
            log.error("llama.cpp refused a batch of %d tokens: a bug of the engine loop", self._batch.n_tokens)
        raise EngineFailedError(
            "the engine failed while decoding", code=code, complaints=library.complaints.lines()[-3:]
        )

    def abort(self) -> None:
        """Make the decode that runs in another thread end at once, or the next one at its beginning."""
        library.complaints.is_muted = True
        self._abort[0] = b"x"

    def clear_abort(self) -> None:
        self._abort[0] = b"\0"
        library.complaints.is_muted = False

    def remove(self, sequence: int, start: int = 0) -> bool:
        """Forget a sequence's tokens from `start` on; False where this model can only forget all of them."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, start or -1, -1))

    def sample(self, chain: Any, place: int) -> int:
        """Return the next token from the logits at `place` of the last batch."""
        return int(self._lib.llama_sampler_sample(chain, self._handle, place))

    def close(self) -> None:
        """Free the memory and end the compute threads."""
        if self._handle is not None:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._handle)
            self._handle = None
            self._threadpool.close()
