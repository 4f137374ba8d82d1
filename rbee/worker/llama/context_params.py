"""The parameters of a context that decide how much memory it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rbee.wire.common import CacheType
    from rbee.worker.llama.functions import Functions

BATCH: Final = 512
"""Tokens in one decode; also llama.cpp's physical batch, so that an aborted decode leaves nothing half done."""

SCORED: Final = 8
"""Tokens in one decode whose logits are all wanted: 1 MB each with 250 000 tokens, twice, and always there."""


_TYPES: Final[dict[CacheType, int]] = {"f16": 1, "q8_0": 8, "q4_0": 2}
"""GGML_TYPE_F16, GGML_TYPE_Q8_0 and GGML_TYPE_Q4_0 (ggml.h)."""
_FLASH_ATTENTION: Final = 1


def context_params(lib: Functions, *, slots: int, length: int, scratch: int = 0, kv: CacheType = "f16") -> Any:
    """Return them for `slots` sequences of `length` tokens each, and `scratch` more that states pass through."""
    assert scratch < SCORED, "llama.cpp ends the process where there are more sequences than outputs"
    params = lib.llama_context_default_params()
    params.n_ctx = slots * length
    params.n_batch = params.n_ubatch = BATCH
    params.n_seq_max = slots + scratch
    # One output a sequence: room for logits of every token of a batch would be 65 MB with 32 000 tokens.
    params.n_outputs_max = slots + SCORED - 1
    # Sequences draw on one pool of cells; a copy of a sequence shares the cells of the original.
    params.kv_unified = True
    params.type_k = params.type_v = _TYPES[kv]
    if kv != "f16":
        # Nothing else reads quantised values.
        params.flash_attn_type = _FLASH_ATTENTION
    params.no_perf = True
    return params
