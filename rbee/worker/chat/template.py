"""Renders a model's chat template, and prints what it puts around a prompt as one JSON object.

This is the hidden command `rbee chat-template`, with the template on stdin: it comes from a file that anybody may have
made, and could loop for ever or fill the memory. So it runs in a process of its own, with limits, in jinja2's sandbox,
once for each load of a model.
"""

from __future__ import annotations

import json
import resource
import secrets
import sys
import time
from typing import Any, Final, NoReturn

import msgspec
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rbee.wire.chat_template import ChatFrame, ChatTemplate

CPU_SECONDS: Final = 5
MEMORY_BYTES: Final = 1 << 30
MAX_LENGTH: Final = 100_000


class UnusableError(Exception):
    """The template does not frame a prompt."""


def frame(request: ChatTemplate) -> ChatFrame:
    """Return what the template puts around one message of a user. Raises UnusableError or TemplateError."""
    # Rendered around a word that nobody could know, so that no prompt ever goes through the template's hands.
    word = f"prompt{secrets.token_hex(16)}"
    template = _environment().from_string(request.template)

    def render(content: str) -> str:
        text = template.render(
            messages=[{"role": "user", "content": content}],
            add_generation_prompt=True,
            bos_token=request.begin,
            eos_token=request.end,
            tools=None,
            documents=None,
        )
        if len(text) > MAX_LENGTH:
            raise UnusableError("it writes more than any template should")
        return text

    before, found, after = render(word).partition(word)
    if not found or word in after:
        raise UnusableError("it does not show the message exactly once")
    return ChatFrame(before=before, after=after, strips=f"{before}{word}{after}" == render(f" \n{word}\n "))


def _environment() -> ImmutableSandboxedEnvironment:
    # As the templates' authors know it: https://huggingface.co/docs/transformers/chat_templating
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> NoReturn:
        raise TemplateError(str(message)[:200])

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment.globals |= {"raise_exception": refuse, "strftime_now": time.strftime}
    environment.filters["tojson"] = tojson
    return environment


def _refusal(reason: str) -> bytes:
    # Half of a pair of surrogates, which a template can write, is no UTF-8.
    return msgspec.json.encode({"reason": reason[:300].encode("utf-8", "backslashreplace").decode()})


def main(_argv: list[str]) -> int:
    """Run the command; returns the exit code, 1 with the reason on stdout where the template cannot be used."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ChatTemplate)
    try:
        printed, code = msgspec.json.encode(frame(request)), 0
    except MemoryError:
        printed, code = _refusal("it takes more memory than any template should"), 1
    except Exception as exc:  # noqa: BLE001 (a template's code may raise anything)
        printed, code = _refusal(f"{type(exc).__name__}: {exc}"), 1
    sys.stdout.buffer.write(printed + b"\n")
    return code
