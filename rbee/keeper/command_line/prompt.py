"""Reads the prompt from the command line and from standard input, and checks it before anything is started."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, Final

from rbee.adapters.arguments import UsageError
from rbee.errors import InvalidRequestError
from rbee.keeper.command_line import piped

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARACTERS: Final = 1_000_000
HOW_TO_GIVE: Final = 'give it as --prompt "…" (rbee run: after the model), or pipe it in'
_MAX_BYTES: Final = 4 * MAX_CHARACTERS
_STDIN: Final = "standard input"
_MARKS: Final = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, which Windows programs write at the beginning of a text; they are no part of it."""


def read(option: str | None, note: Callable[[str], None]) -> str:
    """Return the prompt: `--prompt`, and below it what is piped in; either may be left out.

    Standard input is taken without its last newline. Raises UsageError if there is neither, and InvalidRequestError for
    text that no model accepts.
    """
    # The bytes of the argument, however the locale decoded them.
    given = None if option is None else _decode(os.fsencode(option), "--prompt")
    if given == "":
        raise UsageError("the prompt is empty (--prompt)", HOW_TO_GIVE)
    data = piped.read(_MAX_BYTES + 2, note, is_needed=given is None)
    if data is None:
        if given is None:
            raise UsageError("there is no prompt", HOW_TO_GIVE)
        return given
    text = _decode(data, _STDIN)
    text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
    if given is not None:
        return _bounded(f"{given}\n\n{text}") if text else given
    if not text:
        raise _refused("the prompt is empty (standard input)", "at least 1 character", HOW_TO_GIVE)
    return text


def _decode(data: bytes, where: str) -> str:
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError as exc:
        # It may be too long as well, and cut within a character: then the length is the error.
        if len(data) <= _MAX_BYTES:
            raise _refused(
                f"the prompt is not valid {encoding.upper()}: byte {len(mark) + exc.start + 1} of {where}",
                "UTF-8 text",
                "convert it first, for example with `iconv -t UTF-8`",
            ) from None
        text = "x" * len(data)
    _bounded(text.removesuffix("\n").removesuffix("\r"))
    if "\0" in text:
        raise _refused(
            f"the prompt holds a NUL character: character {text.index(chr(0)) + 1} of {where}",
            "text without NUL",
            "give text; this looks like a binary file",
        )
    return text


def _bounded(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"the prompt has more than {MAX_CHARACTERS:,} characters", f"<= {MAX_CHARACTERS}", None)
    return text


def _refused(message: str, rule: str, hint: str | None) -> InvalidRequestError:
    return InvalidRequestError(message, hint=hint, field="prompt", rule=rule)
