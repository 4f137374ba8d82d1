"""Tells which saved states a context can go on from: llama.cpp itself checks nothing but the shapes of layers."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from rbee.worker.llama.gguf_file import libraries
from rbee.worker.prefix_store.model_key import model_key

if TYPE_CHECKING:
    from rbee.worker.llama.model import Model

_PARAMS: Final = (
    *("type_k", "type_v", "flash_attn_type", "swa_full", "kv_unified"),
    *("rope_scaling_type", "rope_freq_base", "rope_freq_scale"),
    *("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx"),
    *("attention_type", "pooling_type", "embeddings"),
)
"""Of `llama_context_params`: what decides how a state is laid out, and what numbers are in it.

How many threads and tokens there are at once decides the last bits alone.
"""
_ENGINE: Final = ("libllama.so", "libggml-base.so.0")


def state_key(model: Model, params: Any) -> bytes:
    """Return the name that states have in common which this model has saved, in a context with these parameters."""
    # Some models turn positions in another way in a context that is longer than what they were first trained with
    # (LongRoPE: `get_rope_factors` of llama-model.cpp).
    length = params.n_ctx if params.kv_unified else params.n_ctx // params.n_seq_max
    is_long = length > (model.number("rope.scaling.original_context_length") or model.trained_length)
    return model_key(model.fingerprint, [_engine(), is_long, *((name, getattr(params, name)) for name in _PARAMS)])


@cache
def _engine() -> bytes:
    """Return a checksum of the engine, 5 MB: another build may compute, or write, states in another way."""
    digest = blake2b(digest_size=16)
    for name in _ENGINE:
        digest.update((libraries() / name).read_bytes())
    return digest.digest()
