"""Which GGUF files hold a model that continues text, and what the others are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.narrower_errors import UnsupportedModelError

if TYPE_CHECKING:
    from rbee.wire.gguf import ModelHeader

TEXT: Final = "text"
UNKNOWN: Final = "this engine does not know"
"""Stands in the reason of what a newer engine may know."""
_NOTHING_WRONG: Final = (
    "nothing is wrong with the file: use another file of this model, or a version of rbee with a newer engine"
)
_MAYBE_WRONG: Final = (
    "it was made for another version of llama.cpp, or wrongly: "
    "use another file of this model, or a newer version of rbee"
)


class _Kind(NamedTuple):
    """What such a file is, and what can be done with it."""

    what: str
    use: str


_OTHER_PROGRAM: Final = "rbee runs models that continue a text; "
KINDS: Final = {
    "embeddings": _Kind(
        "an embedding model: it turns a text into numbers and writes none",
        _OTHER_PROGRAM + "llama.cpp's llama-embedding makes the numbers with this one",
    ),
    "reranker": _Kind(
        "a reranker: it scores how well texts answer a question and writes none",
        _OTHER_PROGRAM + "llama.cpp's llama-server --rerank uses this one",
    ),
    "encoder": _Kind(
        "an encoder: it reads a text for another model and writes none",
        _OTHER_PROGRAM + "this one belongs to a program that makes pictures, or compares texts",
    ),
    "encoder_decoder": _Kind(
        "an encoder-decoder: it answers a whole text with another one, and cannot continue it",
        _OTHER_PROGRAM + "llama.cpp's llama-cli or transformers run this one",
    ),
    "diffusion": _Kind(
        "a diffusion model: it fills in a text at all places at once, and cannot continue it",
        _OTHER_PROGRAM + "llama.cpp's llama-diffusion-cli runs this one",
    ),
    "not_causal": _Kind(
        "a model that does not continue text from left to right",
        _OTHER_PROGRAM + "the page that it comes from says what it is for",
    ),
    "projector": _Kind(
        "a projector (mmproj): the part of a model that sees pictures or hears sound, and no model by itself",
        "name the model that it belongs to, a file beside it without mmproj in its name",
    ),
    "adapter": _Kind(
        "a LoRA adapter: changes to another model, and no model by itself",
        "name the model that it was made for, or put it into that model with llama.cpp's llama-export-lora",
    ),
    "control_vector": _Kind(
        "a control vector: a change to another model, and no model by itself",
        "name the model that it was made for",
    ),
    "calibration": _Kind(
        "calibration data (imatrix), from which quantisations are made, and no model",
        "name a model, a file beside it without imatrix in its name",
    ),
    "vocabulary": _Kind(
        "a vocabulary alone: it has no weights",
        "name a file with weights; those are as large as megabytes or gigabytes",
    ),
    "no_vocabulary": _Kind(
        "a model without a vocabulary: it can read no text and write none",
        "use a file that was made with its tokenizer",
    ),
}
"""All kinds but `text`, the one that rbee can run."""


def describe(header: ModelHeader) -> str:
    """Return in one line what a file is, and whether the engine that read its header can use it."""
    if (kind := KINDS.get(header.kind)) is not None:
        return kind.what
    if header.kind != TEXT:
        return f"{header.kind}: this version of rbee does not know what that is"
    if header.unsupported is not None:
        return f"a text model that is not supported: {header.unsupported}"
    return "a text model, which this engine knows"


def refusal(header: ModelHeader, name: str) -> UnsupportedModelError | None:
    """Return why no worker can be started with this file, or None if one can."""
    if header.kind in KINDS:
        return not_text(name, header.kind, architecture=header.architecture)
    if header.unsupported is not None:
        return unsupported(name, header.unsupported, architecture=header.architecture)
    return None


def not_text(name: str, kind: str, **details: object) -> UnsupportedModelError:
    """Return the error for a file of one of `KINDS`."""
    what, use = KINDS[kind]
    return UnsupportedModelError(f"{name} is not a model that writes text, but {what}", hint=use, kind=kind, **details)


def unsupported(name: str, why: str, **details: object) -> UnsupportedModelError:
    """Return the error for a file that the engine cannot load, though its header is sound."""
    hint = _NOTHING_WRONG if UNKNOWN in why else _MAYBE_WRONG
    return UnsupportedModelError(f"{name} is not supported: {why}", hint=hint, **details)
