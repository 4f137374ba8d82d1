"""A model's metadata as the header of its GGUF file gives it, passed from process to process."""

from __future__ import annotations

from typing import Final

from rbee.wire.common import CacheType, Message

WINDOW_BATCH: Final = 512
WINDOW_STEP: Final = 256
"""A window's cells: those of each sequence, and of a batch, rounded up (llama-kv-cache-iswa.cpp)."""
CACHE_BLOCK: Final = 32
"""Numbers that are quantised together; the heads of a model have to be multiples of it."""
_BLOCK_BYTES: Final[dict[CacheType, int]] = {"f16": 64, "q8_0": 34, "q4_0": 18}


class ModelHeader(Message, kw_only=True):
    """A model's metadata; None where neither the file nor llama.cpp's own defaults give it.

    `parameters` counts weights, `tensor_bytes` their size. `quantisation` is llama.cpp's name of the file type, such as
    `Q4_K_M`. `kind` is one of `wire.model_kind.KINDS`, or one that a newer version knows; `unsupported` says why the
    engine that read the header cannot load the model, which nothing has to be wrong with. `chat_family` names how
    conversations are written where the model has no chat template. `has_tools` and `has_thinking`: its chat template
    speaks of tools, or of thoughts.

    What a context takes, in bytes: `cache_per_token` for each token, in the layers that keep all of them;
    `window_per_token` in those that keep the last `window`, with 16 bits a value both; `state_bytes` for each sequence,
    in recurrent layers. `can_quantise_cache` says whether the engine keeps it with fewer bits, where it was asked.
    """

    architecture: str
    name: str | None = None
    parameters: int
    tensor_bytes: int
    quantisation: str | None = None
    block_count: int | None = None
    context_length: int | None = None
    embedding_length: int | None = None
    head_count: int | None = None
    head_count_kv: int | None = None
    key_length: int | None = None
    value_length: int | None = None
    vocabulary: int | None = None
    end_token: int | None = None
    has_chat_template: bool = False
    chat_family: str | None = None
    kind: str = "text"
    unsupported: str | None = None

    cache_per_token: int | None = None
    window_per_token: int = 0
    window: int = 0
    state_bytes: int = 0

    has_tools: bool = False
    has_thinking: bool = False
    can_quantise_cache: bool | None = None

    def kv_bytes_per_token(self, kv: CacheType = "f16") -> int | None:
        """Return how many bytes each token takes in the KV cache; None where unknown."""
        if self.cache_per_token is not None:
            return _sized(self.cache_per_token, kv)
        if not (self.block_count and self.head_count_kv and self.key_length and self.value_length):
            return None
        return _sized(2 * self.block_count * self.head_count_kv * (self.key_length + self.value_length), kv)

    def fixed_cache_bytes(self, slots: int, context: int, kv: CacheType = "f16") -> int:
        """Return what a cache of `slots` sequences takes beside that, if each has `context` tokens."""
        held = -(-(self.window * slots + WINDOW_BATCH) // WINDOW_STEP) * WINDOW_STEP
        return _sized(self.window_per_token, kv) * min(held, slots * context) + self.state_bytes * slots

    def takes_cache_type(self, kv: CacheType) -> bool:
        """Whether the engine keeps this model's context so, as far as the header tells where the engine did not."""
        if kv == "f16":
            return True
        if self.can_quantise_cache is not None:
            return self.can_quantise_cache
        lengths = (self.key_length, self.value_length)
        return all(length is not None and length % CACHE_BLOCK == 0 for length in lengths)


def _sized(half: int, kv: CacheType) -> int:
    """Return how many bytes the numbers take that are `half` bytes with 16 bits each."""
    return -(-half * _BLOCK_BYTES[kv] // _BLOCK_BYTES["f16"])
