"""Finds a model in the user's Hugging Face cache when the hub is unreachable."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.adapters.download import hub_cache
from rbee.errors import InvalidRequestError, ModelNotFoundError
from rbee.hive.catalogue import variant
from rbee.wire import model_ref

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.hive.catalogue.variant import ChosenModel
    from rbee.wire.model_ref import ModelRef


class CachedModel(NamedTuple):
    """A model of the cache, where its first file is, and the reference that means it for good."""

    ref: ModelRef
    path: Path
    choice: ChosenModel


def find(ref: ModelRef) -> CachedModel | None:
    """Return the model from the cache, chosen by the rules that choose among the hub's files.

    Where it is only the one model that the cache has, the hub might choose another: it gets a reference by its file.
    """
    for repository in hub_cache.repositories(ref.reference):
        try:
            choice = variant.choose(ref, repository.files)
        except (ModelNotFoundError, InvalidRequestError):
            continue
        if (paths := hub_cache.find(repository, choice.files)) is not None:
            is_sure = ref.variant is not None or choice.variant == variant.DEFAULT_VARIANT
            return CachedModel(ref if is_sure else ref._replace(variant=choice.files[0].name), paths[0], choice)
    return None


def advice(ref: ModelRef) -> str:
    """Return a hint: which models of the repository need no hub."""
    cached = {
        model_ref.quoted(f"{ref.provider}:{ref.reference}/{files[0].name}")
        for repository in hub_cache.repositories(ref.reference)
        for files in variant.group(repository.files).values()
    }
    if cached:
        return f"its Hugging Face cache has {', '.join(sorted(cached))}, which needs no hub"
    return "models that are on it already need no hub"
