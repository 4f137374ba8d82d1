"""Takes JSON schemas apart: what a part needs of the whole, and which part makes all of it impossible (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_TRIED: Final = 200
"""Parts of one schema that are tried, a millisecond each."""
_ONE: Final = (
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS: Final = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_SHARED: Final = ("$defs", "definitions")


def place_of(schema: Any, why_not: Callable[[Any], str]) -> str:
    """Return the JSON pointer of the smallest part that fails as the whole schema does.

    `why_not` says why a schema cannot be compiled, and nothing of one that can. What refers to another part is followed
    as far as `$defs` and `definitions` go.
    """
    reason, pointer, tried = why_not(schema), "#", 0
    shared = shared_of(schema) if isinstance(schema, dict) else {}
    is_deeper = True
    while is_deeper:
        is_deeper = False
        for step, part in _parts(schema):
            if (tried := tried + 1) > MAX_TRIED:
                return pointer
            if why_not(shared | part) == reason:
                schema, pointer, is_deeper = part, f"{pointer}/{step}", True
                break
    return pointer


def shared_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what the parts of a schema may refer to, and need beside them where they stand alone."""
    return {key: schema[key] for key in _SHARED if key in schema}


def _parts(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return
    for key in _ONE:
        if isinstance(part := schema.get(key), dict):
            yield key, part
    for key in _LISTS:
        if isinstance(parts := schema.get(key), list):
            yield from ((f"{key}/{index}", part) for index, part in enumerate(parts) if isinstance(part, dict))
    for key in _MAPS:
        if isinstance(named := schema.get(key), dict):
            yield from ((f"{key}/{_escaped(name)}", part) for name, part in named.items() if isinstance(part, dict))


def _escaped(name: str) -> str:
    """Return a name as RFC 6901 has it in a pointer."""
    return name.replace("~", "~0").replace("/", "~1")
