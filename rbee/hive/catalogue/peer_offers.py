"""Chooses among the models of a repository that other nodes offer (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.hive.catalogue import variant
from rbee.hive.catalogue.variant import ChosenModel
from rbee.wire.hub import HubFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.model_copy import OfferedModel, Source
    from rbee.wire.model_ref import ModelRef


def find(ref: ModelRef, sources: Sequence[Source]) -> ChosenModel | None:
    """Return the model that `ref` means on another node, for when the hub does not say.

    A reference that names a file means that file on any node.
    """
    for source in sources:
        for model in source.models:
            files = _files(model)
            if files and (model.is_meant or ref.variant == files[0].name):
                return ChosenModel(files, model.variant)
    return None


def having(file: HubFile, sources: Sequence[Source]) -> list[Source]:
    """Return the nodes that have this very file, by its hash; none where the hash is unknown."""
    return [
        source
        for source in sources
        if any(
            (one.size_bytes, one.sha256) == (file.size, file.sha256) for model in source.models for one in model.files
        )
    ]


def _files(model: OfferedModel) -> list[HubFile]:
    """Return the model's files; empty if they do not make up one model, or have names that we would not write."""
    files = [HubFile(file.name, file.size_bytes, file.sha256) for file in model.files]
    groups = list(variant.group(files).values())
    return files if groups == [files] else []
