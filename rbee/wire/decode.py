"""Turns bytes from a socket into messages, and every way they can be wrong into one clear error."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from rbee.errors import UNKNOWN_FIELD, InvalidRequestError, UnknownFieldError
from rbee.wire import common, registry

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_FIELD: Final = re.compile(r"field `(?P<field>[A-Za-z0-9_]{1,64})`")


def decode(body: bytes, kind: type[T]) -> T:
    """Decode a JSON request body.

    Raises InvalidRequestError naming the field and the rule. The content of the request is never repeated in it: it
    may be private, and it may hold terminal escapes.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        reason = "malformed JSON" if body else "the body is empty"
        position = re.search(r"\(byte (\d+)\)", str(exc))
        at = f" at byte {position[1]}" if position else ""
        raise InvalidRequestError(
            f"the request body is not valid: {reason}{at}", field="$", rule="a JSON object in UTF-8"
        ) from None
    except UnicodeDecodeError:
        raise InvalidRequestError(
            "the request body is not valid UTF-8", field="$", rule="a JSON object in UTF-8"
        ) from None
    except RecursionError:
        raise InvalidRequestError(
            "the request body is nested too deeply", field="$", rule="a flat JSON object"
        ) from None


def convert(values: object, kind: type[T], *, strict: bool = False) -> T:
    """Check already decoded values (query parameters, settings); errors as `decode` raises them."""
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None


def _invalid(text: str) -> InvalidRequestError:
    """Split msgspec's message into field and rule, leaving out whatever it quotes from the payload."""
    field = "$"
    if found := _PATH.search(text):
        field, text = found["path"] or "$", text[: found.start()]
    # The path repeats keys of the payload where a mapping's value is wrong; only those that look like ours are.
    if not re.fullmatch(r"[A-Za-z0-9_.\[\]$]{1,200}", field):
        field = "$"
    if text.startswith("Object contains unknown field"):
        name = _FIELD.search(text)
        field = name["field"] if name and field == "$" else field
        return UnknownFieldError(f"field {field}: {UNKNOWN_FIELD}", field=field)
    if text.startswith("Object missing required field"):
        name = _FIELD.search(text)
        rule = "required"
        if name:
            field = name["field"] if field == "$" else f"{field}.{name['field']}"
    elif text.startswith("Invalid enum value"):
        rule = "one of the values in the documentation"
    elif "matching regex" in text:
        rule = next(
            (words for pattern, words in (common.RULES | registry.RULES).items() if repr(pattern) in text),
            "text in the documented form",
        )
    else:
        rule = text[0].lower() + text[1:] if text else "another form"
        rule = rule.replace("`", "")
    return InvalidRequestError(f"field {field}: {rule}", field=field, rule=rule)


def keep_seconds(header: str | None) -> float | None:
    """Return what a request says of how long its worker is to stay; raises InvalidRequestError."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= common.FOREVER:
        rule = f"a number of seconds from 0 to {common.FOREVER:.0f}"
        raise InvalidRequestError(f"header {common.KEEP_HEADER}: {rule}", field=common.KEEP_HEADER, rule=rule)
    return seconds
