"""A model's metadata as the header of its GGUF file gives it, passed from process to process."""

from __future__ import annotations

from typing import Final

from rbee.wire.common import Message

WINDOW_BATCH: Final = 512
WINDOW_STEP: Final = 256
"""A window's cells: those of each sequence, and of a batch, rounded up (llama-kv-cache-iswa.cpp)."""


class ModelHeader(Message, kw_only=True):
    """A model's metadata; None where neither the file nor llama.cpp's own defaults give it.

    `parameters` counts weights, `tensor_bytes` their size. `quantisation` is llama.cpp's name of the file type, such as
    `Q4_K_M`. `kind` is one of `wire.model_kind.KINDS`, or one that a newer version knows; `unsupported` says why the
    engine that read the header cannot load the model, which nothing has to be wrong with. `chat_family` names how
    conversations are written where the model has no chat template. `has_tools` and `has_thinking`: its chat template
    speaks of tools, or of thoughts.

    What a context takes, in bytes: `cache_per_token` for each token, in the layers that keep all of them;
    `window_per_token` in those that keep the last `window`; `state_bytes` for each sequence, in recurrent layers.
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

    def kv_bytes_per_token(self) -> int | None:
        """Return how many bytes each token takes in the KV cache, with 16 bits a value; None where unknown."""
        if self.cache_per_token is not None:
            return self.cache_per_token
        if not (self.block_count and self.head_count_kv and self.key_length and self.value_length):
            return None
        return 2 * self.block_count * self.head_count_kv * (self.key_length + self.value_length)

    def fixed_cache_bytes(self, slots: int, context: int) -> int:
        """Return what a cache of `slots` sequences takes beside that, if each has `context` tokens."""
        held = -(-(self.window * slots + WINDOW_BATCH) // WINDOW_STEP) * WINDOW_STEP
        return self.window_per_token * min(held, slots * context) + self.state_bytes * slots
