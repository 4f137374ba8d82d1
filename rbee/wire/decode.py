"""Turns bytes from a socket into messages, and every way they can be wrong into one clear error."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import inspect

from rbee.errors import InvalidRequestError, PayloadTooLargeError
from rbee.narrower_errors import UNKNOWN_FIELD, UnknownFieldError
from rbee.wire import common, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_FIELD: Final = re.compile(r"field `(?P<field>[A-Za-z0-9_]{1,64})`")
_MOST_TOLD: Final = 12
"""Values of a field that are listed where another one came."""
_STEP: Final = re.compile(r"\.?([A-Za-z0-9_]+)|\[([0-9.]+)\]")


MAX_TEXTS: Final = 200_000
"""Names and texts in the body of a request for text: each takes 0.25 us to read, and the event loop waits for it."""
_SURELY_FEW: Final = 1_000_000
"""Bytes of a body that holds no more, or hardly."""


def check_texts(body: bytes) -> None:
    """Refuse a body of more names and texts than any conversation has. Raises PayloadTooLargeError.

    The quotes are counted, which takes 10 ms for 16 MB. A text that ends with a backslash counts half.
    """
    if len(body) <= _SURELY_FEW:
        return
    if (body.count(b'"') - body.count(b'\\"')) // 2 > MAX_TEXTS:
        rule = f"at most {MAX_TEXTS} names and texts"
        raise PayloadTooLargeError(f"the request body holds too many values: {rule}", field="$", rule=rule)


def decode(body: bytes, kind: type[T]) -> T:
    """Decode a JSON request body.

    Raises InvalidRequestError naming the field and the rule. The content of the request is never repeated in it: it
    may be private, and it may hold terminal escapes.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc), kind) from None
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
        raise _invalid(str(exc), kind) from None


def _invalid(text: str, kind: type[Any]) -> InvalidRequestError:
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
        values = _choices_at(kind, field)
        rule = f"one of {', '.join(values)}" if values else "one of the values in the documentation"
    elif "matching regex" in text:
        rule = next(
            (words for pattern, words in (common.RULES | registry.RULES).items() if repr(pattern) in text),
            "text in the documented form",
        )
    else:
        rule = text[0].lower() + text[1:] if text else "another form"
        rule = rule.replace("`", "")
    return InvalidRequestError(f"field {field}: {rule}", field=field, rule=rule)


def _choices_at(kind: type[Any], path: str) -> list[str]:
    """Return the texts that the field at msgspec's `path` may be; none where they are no choice, or too many."""
    found = _options(_info_of(kind))
    for name, _ in _STEP.findall(path):
        found = [option for info in found for part in _parts(info, name) for option in _options(part)]
    values = {str(value) for info in found for value in _values(info)}
    return sorted(values) if len(values) <= _MOST_TOLD else []


_info_of: Final[Callable[[Any], inspect.Type]] = cache(inspect.type_info)  # takes some milliseconds


def _options(info: inspect.Type) -> list[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        return _options(info.type)
    if isinstance(info, inspect.UnionType):
        return [option for each in info.types for option in _options(each)]
    return [info]


def _parts(info: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """Yield what stands in a field of that name, or in each place of a list or a mapping where it is none."""
    if isinstance(info, inspect.StructType) and name:
        yield from (field.type for field in info.fields if field.encode_name == name)
        if info.tag_field == name:
            yield inspect.LiteralType((info.tag,))
    elif isinstance(info, inspect.ListType) and not name:
        yield info.item_type
    elif isinstance(info, inspect.DictType):
        yield info.value_type


def _values(info: inspect.Type) -> Iterator[Any]:
    if isinstance(info, inspect.LiteralType):
        yield from info.values
    elif isinstance(info, inspect.EnumType):
        yield from (member.value for member in info.cls)


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
