"""A model's metadata as the header of its GGUF file gives it, passed from process to process."""

from __future__ import annotations

from rbee.wire.common import Message


class ModelHeader(Message, kw_only=True):
    """A model's metadata; None where neither the file nor llama.cpp's own defaults give it.

    `parameters` counts weights, `tensor_bytes` their size. `quantisation` is llama.cpp's name of the file type, such as
    `Q4_K_M`. `kind` is one of `wire.model_kind.KINDS`, or one that a newer version knows; `unsupported` says why the
    engine that read the header cannot load the model, which nothing has to be wrong with.
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
    kind: str = "text"
    unsupported: str | None = None

    def kv_bytes_per_token(self) -> int | None:
        """Return how many bytes one token takes in the KV cache, with 16 bits a value; None where unknown."""
        if not (self.block_count and self.head_count_kv and self.key_length and self.value_length):
            return None
        return 2 * self.block_count * self.head_count_kv * (self.key_length + self.value_length)
