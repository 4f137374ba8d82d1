"""Which names models may have beside their own, and where a chain of them leads (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_IN_A_ROW: Final = 5
"""Aliases that may stand for each other."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,199}")
_REFERENCE: Final = re.compile(r"(?:hf|file|builtin|https?):|.*\.gguf", re.IGNORECASE)
_RULE: Final = "a letter or digit, then up to 199 letters, digits, or any of . _ - + : /"


def check_name(name: str) -> None:
    """Raise InvalidRequestError unless a model may have this name, which no path or reference looks like."""
    if not _NAME.fullmatch(name):
        raise _refused(f"no model can be called {_shown(name)}", f"expected is {_RULE}")
    if _REFERENCE.match(name):
        raise _refused(f"{_shown(name)} looks like a reference or a file, which no alias does", "choose another name")


def is_name(name: str) -> bool:
    """Whether a model may have this name."""
    return _NAME.fullmatch(name) is not None and not _REFERENCE.match(name)


def named(name: str, aliases: Mapping[str, str]) -> str | None:
    """Return the alias that a name is, in small or capital letters, with `:latest` or without."""
    plain = name.lower().removesuffix(":latest")
    return next((alias for alias in aliases if alias.lower().removesuffix(":latest") == plain), None)


def check_chain(name: str, aliases: Mapping[str, str]) -> None:
    """Raise InvalidRequestError if an alias leads back to itself, or over too many others."""
    chain = [name]
    while (found := named(aliases[chain[-1]].partition("@")[0], aliases)) is not None:
        way = " → ".join([*chain, found])
        if found in chain:
            raise _refused(f"the alias {name} leads back to itself: {way}", "one of them must name a model")
        if len(chain) == MAX_IN_A_ROW:
            raise _refused(f"{way}: at most {MAX_IN_A_ROW} aliases may stand for each other", "name the model itself")
        chain.append(found)


def _refused(message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(f"field name: {message}", hint=hint, field="name", rule=hint)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:60]}…")
