"""Makes text in UTF-8 of a small answer, however it was packed and encoded on its way."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from typing import TYPE_CHECKING, Final

from rbee.adapters.download.web_errors import BrokenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_BYTES: Final = 64 * 1024 * 1024
"""A repository's list of files; some have ten thousands."""
_GZIP: Final = b"\x1f\x8b"
_CHARSET: Final = re.compile(r'charset\s*=\s*"?([\w.:-]+)', re.IGNORECASE)


class TooLargeError(Exception):
    """The answer is larger than any that is expected."""


def text_of(pieces: Iterable[bytes], headers: Mapping[str, str]) -> bytes:
    """Return the text of an answer as UTF-8, without a byte order mark.

    Raises BrokenError for a page of something in between, and for packings that Python does not know; TooLargeError.
    """
    body = _joined(pieces)
    packings = [word.strip().lower() for word in headers.get("Content-Encoding", "").split(",")]
    for packing in reversed(packings):
        body = _unpacked(body, packing)
    if body.startswith(_GZIP):
        body = _unpacked(body, "gzip")  # as a proxy leaves it that has dropped the header
    kind = headers.get("Content-Type", "")
    text = _decoded(body, kind)
    if "html" in kind.lower() or text.lstrip().startswith("<"):
        raise BrokenError("a web page came in place of the answer, as from a login or a proxy in between")
    return text.encode("utf-8", "surrogateescape")


def _joined(pieces: Iterable[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MAX_BYTES:
            raise TooLargeError
    return bytes(body)


def _unpacked(body: bytes, packing: str) -> bytes:
    match packing:
        case "" | "identity" | "none":
            return body
        case "gzip" | "x-gzip" if not body.startswith(_GZIP):
            return body  # it was unpacked on its way, and the header left
        case "gzip" | "x-gzip":
            return _inflated(body, zlib.MAX_WBITS | 16)
        case "deflate":
            try:
                return _inflated(body, zlib.MAX_WBITS)
            except BrokenError:
                return _inflated(body, -zlib.MAX_WBITS)  # without the header that it should have, as some servers send
        case _:
            raise BrokenError(
                f"the answer came packed ({packing}), which was not asked for, as from a proxy in between"
            )


def _inflated(body: bytes, bits: int) -> bytes:
    found = bytearray()
    while body:  # several members may follow each other (RFC 1952, section 2.2)
        member = zlib.decompressobj(bits)
        try:
            found += member.decompress(body, MAX_BYTES + 1 - len(found))
        except zlib.error as exc:
            if found:
                break  # what follows is padding
            raise BrokenError("the answer came packed, and cannot be unpacked") from exc
        if len(found) > MAX_BYTES:
            raise TooLargeError
        if not member.eof:
            raise BrokenError("the answer came packed, and was cut short")
        body = member.unused_data
    return bytes(found)


def _decoded(body: bytes, kind: str) -> str:
    """Decode by the byte order mark or the pattern of zeros (RFC 4627, section 3), else by what the header names."""
    encoding = json.detect_encoding(body)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        named = _CHARSET.search(kind)
        try:
            return body.decode(codecs.lookup(named[1]).name) if named else body.decode("utf-8", "surrogateescape")
        except (LookupError, UnicodeDecodeError):
            return body.decode("utf-8", "surrogateescape")
