"""JSON schemas of all kinds, for Hypothesis: what the official suite of tests does not put together."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

Schema = dict[str, Any] | bool

NAMES: Final = st.sampled_from(["a", "b", "city", "ä", "", 'q"', "a b", "$ref", "type"])
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.sampled_from([0.5, -1e20, "", "x", "\n", "é🐝"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)
SMALL: Final = st.integers(0, 4)
FORMATS: Final = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "bees")
PATTERNS: Final = ("^a+$", "b", r"^\d{2,3}$", "^(x|yy)*$", "[^a-z]", "(?=a)a", "(", "^$")


def _with(required: dict[str, Any], /, **optional: Any) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries(required, optional=optional)


def _leaves() -> st.SearchStrategy[Schema]:
    bounds = st.integers(-50, 50) | st.sampled_from([0.5, -2.25])
    numbers = {
        "minimum": bounds,
        "maximum": bounds,
        "exclusiveMinimum": bounds,
        "exclusiveMaximum": bounds,
        "multipleOf": st.sampled_from([1, 3, 0.5, 0.01]),
    }
    return st.one_of(
        st.booleans(),
        _with({"type": st.sampled_from(["null", "boolean"])}),
        _with({"const": VALUES}),
        _with({"enum": st.lists(VALUES, min_size=1, max_size=3)}),
        _with({"type": st.sampled_from(["integer", "number"])}, **numbers),
        _with(
            {"type": st.just("string")},
            minLength=SMALL,
            maxLength=SMALL,
            pattern=st.sampled_from(PATTERNS),
            format=st.sampled_from(FORMATS),
        ),
        _with({"type": st.lists(st.sampled_from(["null", "string", "integer"]), min_size=1, unique=True)}),
        _with({"$ref": st.sampled_from(["#", "#/$defs/x", "#/$defs/none", "https://bees.example/x"])}),
    )


def _around(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    several = st.lists(inner, min_size=1, max_size=3)
    arrays = {
        "items": inner,
        "prefixItems": several,
        "minItems": SMALL,
        "maxItems": SMALL,
        "uniqueItems": st.booleans(),
        "contains": inner,
    }
    objects = {
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), inner, max_size=1),
        "minProperties": SMALL,
        "maxProperties": SMALL,
        "propertyNames": inner,
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=1),
        "unevaluatedProperties": inner,
    }
    return st.one_of(
        _with({"type": st.just("array")}, **arrays),
        _with({"type": st.just("object"), "additionalProperties": st.just(False)}, properties=objects["properties"]),
        _with({"type": st.just("object")}, **objects),
        st.dictionaries(st.sampled_from(["anyOf", "oneOf", "allOf"]), several, min_size=1, max_size=2),
        _with({"not": inner}),
        _with({"if": inner}, then=inner, **{"else": inner}),
        _with({"properties": st.dictionaries(NAMES, inner, max_size=2)}, items=inner, minLength=SMALL),
    )


def _with_definitions(schema: Schema, definition: Schema) -> Schema:
    return schema | {"$defs": {"x": definition}} if isinstance(schema, dict) else schema


def schemas() -> st.SearchStrategy[Schema]:
    """Schemas of draft 2020-12, some of which nothing fits, or nobody can make sense of."""
    found = st.recursive(_leaves(), _around, max_leaves=6)
    return st.builds(_with_definitions, found, found)
