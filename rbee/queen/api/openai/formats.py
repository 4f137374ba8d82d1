"""Reads what an answer has to look like: OpenAI's way, llama.cpp's and vLLM's (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rbee.queen.api.refusal import check_depth, refused
from rbee.wire.chat.conversation import Grammar, JsonObject, JsonSchema, Regex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.wire.chat.conversation import OutputFormat
    from rbee.wire.dialects.openai_request import OpenAIChatRequest, OpenAIResponseFormat


def format_of(request: OpenAIChatRequest) -> OutputFormat | None:
    """Return the format of the answer, None for free text; raises InvalidRequestError, where there are several too."""
    found = list(_formats(request))
    if len(found) > 1:
        raise refused(found[1][0], f"excludes {found[0][0]}: both say what the answer looks like")
    return found[0][1] if found else None


def _formats(request: OpenAIChatRequest) -> Iterator[tuple[str, OutputFormat]]:
    """Give each format that the request has, with the field that says so."""
    if request.response_format is not None and (given := _response_format(request.response_format)) is not None:
        yield "response_format", given
    asked = request.structured_outputs
    schemas = {
        "json_schema": request.json_schema,
        "guided_json": request.guided_json,
        "structured_outputs.json": None if asked is None else asked.json,
    }
    for field, schema in schemas.items():
        if schema is not None:
            check_depth(schema, field)
            yield field, JsonSchema(schema=schema)
    patterns = {
        "guided_regex": request.guided_regex,
        "structured_outputs.regex": None if asked is None else asked.regex,
    }
    for field, pattern in patterns.items():
        if pattern:
            yield field, Regex(pattern=pattern)
    choices = {
        "guided_choice": request.guided_choice,
        "structured_outputs.choice": None if asked is None else asked.choice,
    }
    for field, texts in choices.items():
        if texts:
            yield field, Regex(pattern="|".join(map(_literally, texts)))
    grammars = {
        "grammar": request.grammar,
        "guided_grammar": request.guided_grammar,
        "structured_outputs.grammar": None if asked is None else asked.grammar,
    }
    for field, grammar in grammars.items():
        if grammar:
            yield field, Grammar(syntax="gbnf", text=grammar)


def _literally(text: str) -> str:
    """Return the regular expression for a text. A line end behind a backslash is one in Python alone."""
    return re.escape(text).replace("\\\n", "\\n")


def _response_format(asked: OpenAIResponseFormat) -> OutputFormat | None:
    if asked.type == "text":
        return None
    if asked.type == "json_object":
        schema, field = asked.schema, "response_format.schema"
    elif asked.json_schema is None:
        raise refused("response_format.json_schema", "required")
    else:
        schema, field = asked.json_schema.schema, "response_format.json_schema.schema"
    if schema is None:
        return JsonObject()
    check_depth(schema, field)
    return JsonSchema(schema=schema)
