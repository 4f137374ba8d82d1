"""The language of chat templates, as their authors know it from transformers, in jinja2's sandbox.

https://huggingface.co/docs/transformers/chat_templating, and transformers/utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols

from rbee.worker.chat.attributes import FastSandbox
from rbee.worker.chat.control import END, MARK

if TYPE_CHECKING:
    from datetime import datetime

    from jinja2.parser import Parser
    from jinja2.sandbox import SandboxedEnvironment

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


class GenerationTag(Extension):
    """`{% generation %}`: marks what an assistant wrote, for training; here its content is all that matters."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 has it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class TemplateRefusedError(TemplateError):
    """The template does not take these variables, and says why."""


def make() -> SandboxedEnvironment:
    """Return the environment. Templates may change lists, as Kimi's do: each rendering has its own."""
    environment = FastSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _tojson
    return environment


def at(now: datetime) -> dict[str, Any]:
    """Return the variables that tell the time; it stands still during a rendering."""

    def strftime_now(pattern: str) -> str:
        return now.strftime(pattern)

    # As llama.cpp names them (common/chat.cpp). Days are enough: a prompt that changes each second is never cached.
    return {
        "strftime_now": strftime_now,
        "date_string": now.strftime("%d %b %Y"),
        "datetime": now.strftime("%b %d %Y"),
        "current_date": now.strftime("%Y-%m-%d"),
    }


def _refuse(message: object = "") -> NoReturn:
    raise TemplateRefusedError(str(message)[:200])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own escapes what HTML would not take, which models have not been trained on.
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(_escaped, text) if ensure_ascii else text


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0] in (MARK, END) else json.dumps(found[0])[1:-1]
