"""Chooses the files of a repository that make up the requested model (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from rbee.errors import InvalidRequestError, ModelNotFoundError
from rbee.wire import model_kind, model_ref
from rbee.wire.split_name import MAX_PARTS, SplitName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.hub import HubFile
    from rbee.wire.model_ref import ModelRef

DEFAULT_VARIANT: Final = "Q4_K_M"
"""The quantisation that most publishers name as the best trade between size and quality."""

_AUXILIARY: Final = re.compile(r"(^|[/._-])(?P<what>mmproj|imatrix)[^/]*\.gguf$", re.IGNORECASE)
"""Files that come with a model and are none themselves."""
_PARTS_OF_MODELS: Final = {"mmproj": "projector", "imatrix": "calibration"}
_MOST_NAMED: Final = 3


class ChosenModel(NamedTuple):
    """The files of one model, the one to load first, and the quantisation or name it was chosen by."""

    files: list[HubFile]
    variant: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def choose(ref: ModelRef, files: Sequence[HubFile]) -> ChosenModel:
    """Return the files of `ref`: the file named, the requested variant, else Q4_K_M, else the only one there is.

    Raises ModelNotFoundError or InvalidRequestError (an ambiguous reference), both listing the alternatives, or
    UnsupportedModelError for the name of a file that comes with a model.
    """
    models, wanted = group(files), ref.variant
    if wanted is not None and (part := _AUXILIARY.search(wanted)) and any(file.name == wanted for file in files):
        raise model_kind.not_text(wanted, _PARTS_OF_MODELS[part["what"].lower()], available=sorted(models))
    if not models:
        raise ModelNotFoundError(_no_model(ref, files), model=str(ref))
    if wanted is not None and wanted.lower().endswith(".gguf"):
        if (named := _named(models, _stem(wanted))) is None:
            raise _missing(ref, wanted, models)
        return ChosenModel(named, wanted)
    if wanted is not None:
        matching = [stem for stem in models if _has_variant(stem, wanted)]
        if not matching:
            raise _missing(ref, wanted, models)
        return _only(ref, matching, models, wanted)
    preferred = [stem for stem in models if _has_variant(stem, DEFAULT_VARIANT)]
    if len(preferred) == 1:
        return ChosenModel(models[preferred[0]], DEFAULT_VARIANT)
    return _only(ref, preferred or list(models), models, None)


def _no_model(ref: ModelRef, files: Sequence[HubFile]) -> str:
    """Say why none of the files is a model."""
    text = f"{ref.reference} holds no GGUF file"
    reasons = []
    for name in sorted(file.name for file in files if file.name.lower().endswith(".gguf")):
        if part := _AUXILIARY.search(name):
            reasons.append(f"{name!r} is {model_kind.KINDS[_PARTS_OF_MODELS[part['what'].lower()]].what}")
        elif not model_ref.is_file_name(name):
            reasons.append(f"{name!r} has a name that no file of a model has")
        else:
            reasons.append(f"of the split model of {name!r} other files are missing")
    return f"{text} that is a whole model: {'; '.join(reasons[:_MOST_NAMED])}" if reasons else text


def group(files: Sequence[HubFile]) -> dict[str, list[HubFile]]:
    """Return the models among the files, by the stem of their names.

    The files of a split model belong together, in order; a model with missing files is left out.
    """
    models: dict[str, list[HubFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        is_model = file.name.lower().endswith(".gguf") and not _AUXILIARY.search(file.name)
        if is_model and model_ref.is_file_name(file.name):
            models.setdefault(_stem(file.name), []).append(file)
    return {stem: found for stem, found in models.items() if _is_whole(found)}


def _named(models: dict[str, list[HubFile]], stem: str) -> list[HubFile] | None:
    """Return the model of this name.

    A letter with an accent may be written as one character or as two, and a name as it stands in an address.
    """
    if (found := models.get(stem)) is not None:
        return found
    meant = {normalize("NFC", stem), normalize("NFC", unquote(stem))}
    alike = [other for other in models if normalize("NFC", other) in meant]
    return models[alike[0]] if len(alike) == 1 else None


def _stem(name: str) -> str:
    part = SplitName.parse(name)
    return part.stem if part else name[: -len(".gguf")]


def _is_whole(files: Sequence[HubFile]) -> bool:
    parts = [SplitName.parse(file.name) for file in files]
    if len(files) == 1 and parts[0] is None:
        return True
    numbers = [part.number for part in parts if part]
    counts = {part.parts for part in parts if part}
    return len(counts) == 1 and numbers == list(range(1, max(counts) + 1)) and len(files) <= MAX_PARTS


def _has_variant(stem: str, variant: str) -> bool:
    """Whether a file's name contains a quantisation as a word of its own: Q4_K is not in Q4_K_M."""
    pattern = rf"(^|[^A-Za-z0-9]){re.escape(variant)}($|[^A-Za-z0-9_])"
    return re.search(pattern, stem, re.IGNORECASE) is not None


def _only(ref: ModelRef, stems: list[str], models: dict[str, list[HubFile]], variant: str | None) -> ChosenModel:
    if len(stems) == 1:
        only = models[stems[0]]
        # A quantisation is a word; one in a folder is known by its file, so that a reference can name it.
        return ChosenModel(only, variant or (only[0].name if {"/", ":"} & set(stems[0]) else stems[0]))
    listed = _listed(ref, {stem: models[stem] for stem in stems})
    raise InvalidRequestError(
        f"{ref} is ambiguous: it may be {len(stems)} models",
        hint=f"name one of them: {listed}",
        field="model",
        rule="one model",
        candidates=sorted(stems),
    )


def _missing(ref: ModelRef, wanted: str, models: dict[str, list[HubFile]]) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{ref.reference} has no {wanted}",
        hint=f"it has {_listed(ref, models)}",
        model=str(ref),
        available=sorted(models),
    )


def _listed(ref: ModelRef, models: dict[str, list[HubFile]]) -> str:
    shown = [
        f"{model_ref.quoted(f'hf:{ref.reference}/{files[0].name}')} ({sum(file.size for file in files) / 1e6:.0f} MB)"
        for files in models.values()
    ]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
