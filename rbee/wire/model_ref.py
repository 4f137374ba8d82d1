"""Model references: the forms in which a user names a model, parsed and checked."""

from __future__ import annotations

import posixpath
import re
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

_ALLOWED: Final = re.compile(r"[A-Za-z0-9\-_./:]+")
_PART: Final = r"[^/:.][^/:]*"  # no hidden file, and no `.` that a URL or path would swallow
_HF: Final = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:/(?P<file>(?:{_PART}/)*{_PART}\.(?i:gguf))|:(?P<variant>[^/:]+))?"
)


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
        raise _refused(f"longer than {MAX_LENGTH} characters")
    if not _ALLOWED.fullmatch(text):
        raise _refused("only letters, digits and -_./: may stand in it")
    if ".." in text:
        raise _refused("'..' may not stand in it")
    provider, colon, rest = text.partition(":")
    if provider == "builtin" and text == BUILTIN:
        return ModelRef("builtin", rest)
    if provider == "file" and rest.startswith("/") and rest.lower().endswith(".gguf"):
        return ModelRef("file", posixpath.normpath(f"/{rest.lstrip('/')}"))
    if provider == "hf" and (found := _HF.fullmatch(rest)):
        return ModelRef("hf", found["repo"], found["file"] or found["variant"])
    raise _refused("not one of the accepted forms" if colon else "a bare word names no model")


def _refused(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"model reference: {why}",
        hint="accepted forms: " + ", ".join(FORMS),
        field="model",
        rule=why,
        expected=list(FORMS),
    )
