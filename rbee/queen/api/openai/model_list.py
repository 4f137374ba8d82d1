"""Describes the models of the swarm as OpenAI's list does, with what clients of other servers look for (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.wire.dialects.openai_answer import (
    OpenAIModel,
    OpenAIModelArchitecture,
    OpenAIModelList,
    OpenAIModelMeta,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rbee.queen.api.models import KnownModel
    from rbee.wire.gguf import ModelHeader


def model_list(known: Sequence[KnownModel], aliases: Mapping[str, KnownModel], default: str) -> OpenAIModelList:
    """Return all models and aliases; the default one comes first, because some clients take the first they find."""
    ordered = sorted(known, key=lambda model: model.reference != default)
    entries = [described(model) for model in ordered]
    entries += [described(model, name) for name, model in aliases.items()]
    return OpenAIModelList(data=entries)


def described(model: KnownModel, name: str | None = None) -> OpenAIModel:
    """Return one model, under another name where it was asked for by that."""
    found = OpenAIModel(
        id=name or model.reference,
        object="model",
        created=int(model.created),
        owned_by=_owner(model.reference),
        nodes=list(model.nodes),
        loaded=list(model.loaded),
    )
    if found.id != model.reference:
        found.reference = model.reference
    if (header := model.header) is None:
        return found
    context = model.context or header.context_length
    found.context_length = found.max_model_len = found.context_window = found.max_input_tokens = context
    found.capabilities = _capabilities(header)
    found.architecture = OpenAIModelArchitecture(
        input_modalities=["text"], output_modalities=["embeddings" if header.kind == "embeddings" else "text"]
    )
    found.quantization = header.quantisation
    found.meta = OpenAIModelMeta(
        n_ctx_train=header.context_length,
        n_ctx=context,
        n_params=header.parameters,
        n_embd=header.embedding_length,
        n_vocab=header.vocabulary,
        size=model.size or header.tensor_bytes,
    )
    return found


def _owner(reference: str) -> str:
    provider, _, rest = reference.partition(":")
    return rest.partition("/")[0] if provider == "hf" else "rbee" if provider == "builtin" else "user"


def _capabilities(header: ModelHeader) -> list[str]:
    if header.kind == "embeddings":
        return ["embedding"]
    if header.kind != "text":
        return []
    found = ["completion"]
    if header.has_chat_template:
        found.append("chat")
    if header.has_tools:
        found.append("tools")
    if header.has_thinking:
        found.append("thinking")
    return found
