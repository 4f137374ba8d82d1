"""The language of chat templates, as their authors know it from transformers, in jinja2's sandbox.

https://huggingface.co/docs/transformers/chat_templating, and transformers/utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2.parser import Parser


class GenerationTag(Extension):
    """`{% generation %}`: marks what an assistant wrote, for training; here its content is all that matters."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 has it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def make() -> ImmutableSandboxedEnvironment:
    """Return the environment; the clock stands still in it, so that two renderings are of the same moment."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    now = datetime.now().astimezone()

    def strftime_now(pattern: str) -> str:
        return now.strftime(pattern)

    environment.globals |= {"raise_exception": _refuse, "strftime_now": strftime_now}
    environment.filters["tojson"] = _tojson
    return environment


def _refuse(message: object = "") -> NoReturn:
    raise TemplateError(str(message)[:200])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own escapes what HTML would not take, which models have not been trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
