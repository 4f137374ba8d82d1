"""Refuses fields of a request, in the same words in every dialect (PURE)."""

from __future__ import annotations

from typing import Final

from rbee.errors import InvalidRequestError
from rbee.narrower_errors import UnsupportedFieldError

MAX_DEPTH: Final = 200
"""How deep a schema may be nested; it is encoded again, a few levels further down, where Python ends at a thousand."""

MAX_VALUES: Final = 200_000
"""In a schema: millions of numbers are read soon, and looked through slowly."""


def refused(field: str, rule: str, *, hint: str | None = None) -> InvalidRequestError:
    """Return the error for a field that is wrong; the rule repeats nothing of the request."""
    return InvalidRequestError(f"field {field}: {rule}", hint=hint, field=field, rule=rule)


def unsupported(field: str, rule: str, *, hint: str | None = None) -> UnsupportedFieldError:
    """Return the error for a field that asks for what rbee cannot do, and that would change the answer."""
    return UnsupportedFieldError(f"field {field}: {rule}", hint=hint, field=field, rule=rule)


def check_depth(value: object, field: str) -> None:
    """Raise InvalidRequestError where JSON is nested deeper than MAX_DEPTH, or holds more than MAX_VALUES."""
    level, left = [value], MAX_VALUES
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for found in level:
            if isinstance(found, dict):
                deeper += found.values()
            elif isinstance(found, list):
                deeper += found
        if not deeper:
            return
        left -= len(deeper)
        if left < 0:
            raise refused(field, f"at most {MAX_VALUES} values")
        level = [found for found in deeper if isinstance(found, (dict, list))]
    raise refused(field, f"nested at most {MAX_DEPTH} levels deep")
