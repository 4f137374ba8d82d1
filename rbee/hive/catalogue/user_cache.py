"""Finds a model in the user's own cache of the hub where the hub itself does not say which files it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.adapters.download import hub_cache
from rbee.errors import InvalidRequestError, ModelNotFoundError
from rbee.hive.catalogue import variant

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.hive.catalogue.variant import Choice
    from rbee.wire.model_ref import ModelRef


class Kept(NamedTuple):
    """A model of the cache, where its first file is, and the reference that means it for good."""

    ref: ModelRef
    path: Path
    choice: Choice


def find(ref: ModelRef) -> Kept | None:
    """Return the model as the cache has it, by the rules that choose among the hub's files.

    Not what the hub would give where it means the only one there is: then its own name is what it is known by.
    """
    for repository in hub_cache.repositories(ref.reference):
        try:
            choice = variant.choose(ref, repository.files)
        except (ModelNotFoundError, InvalidRequestError):
            continue
        if (paths := hub_cache.find(repository, choice.files)) is not None:
            is_sure = ref.variant is not None or choice.variant == variant.DEFAULT_VARIANT
            return Kept(ref if is_sure else ref._replace(variant=choice.files[0].name), paths[0], choice)
    return None


def advice(ref: ModelRef) -> str:
    """Say which models of the repository need no hub."""
    kept = {
        f"{ref.provider}:{ref.reference}/{files[0].name}"
        for repository in hub_cache.repositories(ref.reference)
        for files in variant.group(repository.files).values()
    }
    if kept:
        return f"its Hugging Face cache has {', '.join(sorted(kept))}, which needs no hub"
    return "models that are on it already need no hub"
