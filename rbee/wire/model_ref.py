"""Model references: the forms in which a user names a model, parsed and checked."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Final, Literal, NamedTuple

from rbee.errors import InvalidRequestError

Provider = Literal["hf", "file", "builtin"]

BUILTIN: Final = "builtin:bee-stories"
"""The model that ships inside the program."""
BUILTIN_FILES: Final = {"bee-stories": "bee-stories.Q8_0.gguf"}
"""The files of such models, in `rbee.data`."""
MAX_LENGTH: Final = 512
FORMS: Final = (
    "hf:ORG/REPO",
    "hf:ORG/REPO:VARIANT",
    "hf:ORG/REPO/FILE.gguf",
    "file:/absolute/path.gguf",
    "builtin:bee-stories",
)

_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no name of a model has: control characters, line ends, and the halves of pairs that stand for no UTF-8."""
_NAME: Final = r"(?!\.)(?:(?!\.\.)[A-Za-z0-9\-_.])+"  # of an organisation or repository: the hub allows no more
_FILE: Final = r"(?:[^/.][^/]*/)*[^/.][^/]*\.(?i:gguf)"  # whatever stays in its folder, and is not hidden there
_HF: Final = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:/(?P<file>{_FILE})|:(?P<variant>[^/:.][^/:]*))?")


class ModelRef(NamedTuple):
    """A parsed reference. `variant` is a quantisation such as `Q5_K_M`, or a file name within a repository."""

    provider: Provider
    reference: str
    variant: str | None = None

    def __str__(self) -> str:
        text = f"{self.provider}:{self.reference}"
        if self.variant is None:
            return text
        return f"{text}/{self.variant}" if self.variant.lower().endswith(".gguf") else f"{text}:{self.variant}"


def parse(text: str) -> ModelRef:
    """Parse a reference; `str()` of the result is its canonical form.

    Raises InvalidRequestError that lists the accepted forms.
    """
    if len(text) > MAX_LENGTH:
        raise refused(f"longer than {MAX_LENGTH} characters")
    if _UNFIT.search(text):
        raise refused("no control characters, and nothing that is not UTF-8, may stand in it")
    if ".." in text.split("/"):
        raise refused("'..' may not stand in it as a folder")
    provider, colon, rest = text.partition(":")
    if provider == "builtin" and text == BUILTIN:
        return ModelRef("builtin", rest)
    if provider == "file" and rest.startswith("/") and rest.lower().endswith(".gguf"):
        return ModelRef("file", posixpath.normpath(f"/{rest.lstrip('/')}"))
    if provider == "hf" and (found := _HF.fullmatch(rest)):
        return ModelRef("hf", found["repo"], found["file"] or found["variant"])
    raise refused("not one of the accepted forms" if colon else "a bare word names no model")


def is_file_name(name: str) -> bool:
    """Whether a repository's file may have this name: it stays in its folder, and a reference can hold it."""
    return re.fullmatch(_FILE, name) is not None and not _UNFIT.search(name)


def quoted(ref: ModelRef | str) -> str:
    """Return a reference as one types it into a shell."""
    return shlex.quote(str(ref))


def refused(why: str) -> InvalidRequestError:
    """Return the error for what names no model; its hint lists the accepted forms."""
    return InvalidRequestError(
        f"model reference: {why}",
        hint="accepted forms: " + ", ".join(FORMS),
        field="model",
        rule=why,
        expected=list(FORMS),
    )
