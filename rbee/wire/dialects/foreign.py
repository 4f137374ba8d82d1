"""What all messages of other interfaces have in common: they may say more than this version knows."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from rbee.wire.decode import decode

MAX_TOLD: Final = 20
"""Unknown names that are told of one request."""


class Foreign(msgspec.Struct, kw_only=True):
    """Base of what clients of other interfaces send: unknown fields are accepted, and null stands for the default."""


T = TypeVar("T", bound=Foreign)


def decode_foreign(body: bytes, kind: type[T]) -> tuple[T, list[str]]:
    """Decode a request; returns it with the names of the fields that are not known.

    Raises InvalidRequestError as `decode` does.
    """
    found = decode(body, kind)
    names = msgspec.json.decode(body, type=dict[str, msgspec.Raw])  # does not look into the values
    known = kind.__struct_encode_fields__
    return found, [name for name in names if name not in known][:MAX_TOLD]
