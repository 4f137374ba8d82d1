"""Describes the queen's HTTP interface in OpenAPI 3.1, made from the messages of the wire (PURE).

Source: spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.queen.api.route_table import OPENAI, ROUTES
from rbee.wire.common import EVENT_STREAM
from rbee.wire.dialects.openai_answer import OpenAIError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.queen.api.route_table import Route

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"{(\w+)}")
_TEXT: Final = {"type": "string"}
_ERROR: Final = {
    "type": "object",
    "title": "Error",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": _TEXT,
                "message": _TEXT,
                "details": {"type": "object"},
                "hint": _TEXT,
                "correlation_id": _TEXT,
            },
            "required": ["code", "message", "details"],
        }
    },
    "required": ["error"],
}


def document(version: str) -> dict[str, Any]:
    """Return the description, as a value that can be encoded as JSON."""
    kinds = [kind for route in ROUTES for kind in (route.request, route.answer, route.stream, route.query) if kind]
    schemas, components = msgspec.json.schema_components(
        [*kinds, OpenAIError], schema_hook=_any_value, ref_template=_REFERENCE
    )
    known = {id(kind): schema for kind, schema in zip([*kinds, OpenAIError], schemas, strict=True)}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "rbee",
            "version": version,
            "description": "One address for the language models of a swarm: OpenAI's API, and rbee's own.",
        },
        "security": [{"key": []}],
        "paths": _paths(ROUTES, known, components),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    _correct(found)
    bodies = {id(kind) for route in ROUTES for kind in (route.request, route.answer, route.stream)}
    for route in ROUTES:
        if route.query is not None and id(route.query) not in bodies:
            components.pop(route.query.__name__, None)  # its fields are parameters
    found["components"]["schemas"] = {**components, "Error": _ERROR}
    return found


def _paths(
    routes: Iterable[Route], schemas: dict[int, dict[str, Any]], components: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    return paths


def _operation(route: Route, schemas: dict[int, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    is_openai = route in OPENAI
    error = schemas[id(OpenAIError)] if is_openai else {"$ref": _REFERENCE.format(name="Error")}
    answers: dict[str, Any] = {
        "default": {"description": "Why not", "content": {"application/json": {"schema": error}}},
        str(route.status): {"description": "The answer"} | _content(route, schemas),
    }
    operation: dict[str, Any] = {"summary": route.summary, "responses": answers}
    if parameters := [*_path_parameters(route), *_query_parameters(route, components)]:
        operation["parameters"] = parameters
    if route.is_bytes:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif route.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[id(route.request)]}},
        }
    if route.is_public:
        operation["security"] = []
    return operation


def _content(route: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answer is not None:
        content["application/json"] = {"schema": schemas[id(route.answer)]}
    if route.stream is not None:
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schemas[id(route.stream)]}
        # What one event of it is, as OpenAPI 3.2 has it; 3.1 says nothing of streams.
        event = {"type": "object", "properties": {"event": _TEXT, "data": data}, "required": ["data"]}
        content[EVENT_STREAM] = {"schema": event}
    if not content and route.status != 204:
        content["text/plain"] = {"schema": _TEXT}
    return {"content": content} if content else {}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in _PARAMETER.findall(route.path)]


def _query_parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters of the query; a route that asks about one node asks about all where none is named."""
    if route.query is None:
        return []
    schema = components[route.query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()) and name != "node",
            "schema": value,
        }
        for name, value in schema["properties"].items()
    ]


def _any_value(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _correct(value: Any) -> None:
    """Write patterns as JSON schemas do (ECMA-262), where Python has another sign for the end of a text; and prose."""
    if isinstance(value, list):
        for inner in value:
            _correct(inner)
    if not isinstance(value, dict):
        return
    if isinstance(pattern := value.get("pattern"), str):
        value["pattern"] = pattern.replace(r"\Z", "$")
    if isinstance(description := value.get("description"), str):
        value["description"] = inspect.cleandoc(description)
    for inner in value.values():
        _correct(inner)
