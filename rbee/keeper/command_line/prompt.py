"""Reads the prompt from the command line or from standard input, and checks it before anything is started."""

from __future__ import annotations

import os
from typing import Final

from rbee.adapters.arguments import UsageError
from rbee.errors import InvalidRequestError

MAX_CHARACTERS: Final = 1_000_000
HOW_TO_GIVE: Final = 'give it as --prompt "…", or pipe it in'
_MAX_BYTES: Final = 4 * MAX_CHARACTERS


def read(option: str | None) -> str:
    """Return the prompt: `--prompt` unchanged, else standard input without its last newline.

    Raises UsageError if there is neither, and InvalidRequestError for text that no model accepts.
    """
    if option is not None:
        # The bytes of the argument, however the locale decoded them.
        return _check(os.fsencode(option), "--prompt")
    if os.isatty(0):
        raise UsageError("there is no prompt", HOW_TO_GIVE)
    # Not sys.stdin, which is None if it was closed. Bounded, because an endless input must be refused too.
    with open(0, "rb", closefd=False) as stdin:
        data = stdin.read(_MAX_BYTES + 2)
    return _check(data[:-2] if data.endswith(b"\r\n") else data.removesuffix(b"\n"), "standard input")


def _check(data: bytes, where: str) -> str:
    if not data:
        raise _refused(f"the prompt is empty ({where})", "at least 1 character", HOW_TO_GIVE)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        # It may be too long as well, and cut within a character: then the length is the error.
        if len(data) <= _MAX_BYTES:
            raise _refused(
                f"the prompt is not valid UTF-8: byte {exc.start + 1} of {where}",
                "UTF-8 text",
                "convert it first, for example with `iconv -t UTF-8`",
            ) from None
        text = "x" * len(data)
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"the prompt has more than {MAX_CHARACTERS:,} characters", f"<= {MAX_CHARACTERS}", None)
    if "\0" in text:
        raise _refused(
            f"the prompt holds a NUL character: character {text.index(chr(0)) + 1} of {where}",
            "text without NUL",
            "give text; this looks like a binary file",
        )
    return text


def _refused(message: str, rule: str, hint: str | None) -> InvalidRequestError:
    return InvalidRequestError(message, hint=hint, field="prompt", rule=rule)
