"""Decides from the head of an answer whether its body is the file that was asked for, or the rest of it.

What stands between us and the site may answer with something else: a login page, an error page of a proxy, another
range, a file that has changed. Nothing of that may be taken for the file, nor cost the bytes that are there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.adapters.download.web_errors import BrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PLAIN: Final = {"", "identity", "none", "binary", "aws-chunked"}
"""Values of Content-Encoding that stand for bytes as they are; the last ones are only seen in the wild."""
_PAGES: Final = re.compile(
    r"(text/(html|xml|css|javascript)|application/(xhtml\+xml|xml|json|problem\+json|javascript)|multipart/.*)\Z"
)
"""Types that no model file is sent as. text/plain is one: servers send it for what they do not know."""


class NoResumeError(BrokenError):
    """The site does not go on where the file ends; the next attempt should ask for all of it."""


def goes_on(status: int, headers: Mapping[str, str], have: int, size: int, etag: str | None) -> bool:
    """Whether the body follows on the `have` bytes that are there; else it is the whole file, of `size` bytes.

    `etag` is the validator of the bytes that are there, if it is known. Raises BrokenError for any other body.
    """
    if status == 416:  # often with a page that says so
        raise NoResumeError("the site does not go on where the last attempt ended")
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if _PAGES.match(kind):
        raise BrokenError(f"a page ({kind}) came in place of the file, as from a login or a proxy in between")
    packing = headers.get("Content-Encoding", "").strip().lower()
    if packing not in _PLAIN:
        raise BrokenError(f"the file came packed ({packing}), which was not asked for, as from a proxy in between")
    if status != 200 and not (status == 206 and have):
        raise NoResumeError("the site does not go on where the last attempt ended")
    length = headers.get("Content-Length", "")
    expected = size - have if status == 206 else size
    if length.isdecimal() and int(length) != expected:
        raise BrokenError(f"{length} bytes were announced where {expected} are missing: that is not the file")
    if status == 200:
        return False
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None or tuple(map(int, found.groups())) != (have, size - 1, size):
        raise NoResumeError("the site sends another part of the file than was asked for")
    if None not in (etag, given := headers.get("ETag")) and given != etag:
        raise NoResumeError("the site has another file there now")
    return True
