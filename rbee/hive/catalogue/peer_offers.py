"""Chooses among what other nodes have of a repository (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.hive.catalogue import variant
from rbee.hive.catalogue.variant import Choice
from rbee.wire.hub import HubFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.model_copy import OfferedModel, Source
    from rbee.wire.model_ref import ModelRef


def meant(ref: ModelRef, sources: Sequence[Source]) -> Choice | None:
    """Return the model that `ref` means where no hub says so: what it has come to mean on another node.

    A file that the reference names is meant wherever it is.
    """
    for source in sources:
        for model in source.models:
            files = _files(model)
            if files and (model.is_meant or ref.variant == files[0].name):
                return Choice(files, model.variant)
    return None


def having(file: HubFile, sources: Sequence[Source]) -> list[Source]:
    """Return who has this very file, by its hash; nobody where that is not known."""
    return [
        source
        for source in sources
        if any(
            (one.size_bytes, one.sha256) == (file.size, file.sha256) for model in source.models for one in model.files
        )
    ]


def _files(model: OfferedModel) -> list[HubFile]:
    """Return the model's files, or none where they do not make up one model, or have names that we would not write."""
    files = [HubFile(file.name, file.size_bytes, file.sha256) for file in model.files]
    groups = list(variant.group(files).values())
    return files if groups == [files] else []
