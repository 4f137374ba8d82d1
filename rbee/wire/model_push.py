"""How a user's own model file comes to another node: announced, then sent in pieces, then taken into the catalogue."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.wire.common import Message, Name, Request, Sha256, ShortText
from rbee.wire.models import ModelRow  # noqa: TC001 (msgspec reads annotations at run time)
from rbee.wire.split_name import MAX_PARTS, SplitName

PUSH: Final = "/v1/models/push"
PIECE: Final = "/v1/models/push/"
"""Followed by the SHA-256 of the file that the piece is of."""
SWARM_PUSH: Final = "/v2/models/push"
SWARM_PIECE: Final = "/v2/models/push/"

PIECE_BYTES: Final = 8 * 1024 * 1024
"""The bytes of one piece: few enough for a body, and enough that the pauses between two of them do not matter."""
MAGIC: Final = b"GGUF"
"""The first four bytes of a model file (github.com/ggml-org/ggml, docs/gguf.md)."""

_SIZE = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
_OFFSET = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class PushedFile(Request, kw_only=True):
    """A file of a pushed model, by its name without a folder; `modified_ns` is when it was last written.

    Without `sha256` it is only asked whether there is room for it.
    """

    name: Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]*\Z")]
    size_bytes: _SIZE
    modified_ns: _OFFSET
    sha256: Sha256 | None = None


class PushRequest(Request, kw_only=True):
    """A model that is to come: `model_ref` is `file:` and its path on the user's machine, the first file's."""

    model_ref: ShortText
    files: Annotated[list[PushedFile], msgspec.Meta(min_length=1, max_length=MAX_PARTS)]


class NodePush(PushRequest, kw_only=True):
    """The same for a node of the swarm; the queen's own host where none is named."""

    node: Name | None = None


class MissingFile(Message, kw_only=True):
    """A file that is not whole yet: what of it is there already, in bytes."""

    name: str
    sha256: str | None
    offset: _OFFSET


class PushState(Message, kw_only=True):
    """What is missing of the model; its row once nothing is, or its path if the node has this very file itself."""

    missing: list[MissingFile]
    model: ModelRow | None = None
    local_path: str | None = None

    def is_of(self, request: PushRequest) -> bool:
        """Whether it answers this request: what is missing is of its files, each once, and not all of it is there."""
        asked = {file.name: file for file in request.files}
        names = [file.name for file in self.missing]
        return len(set(names)) == len(names) and all(
            (file := asked.get(missing.name)) is not None
            and missing.sha256 == file.sha256
            and (missing.offset < file.size_bytes or (file.sha256 is None and missing.offset == file.size_bytes))
            for missing in self.missing
        )


class PieceQuery(Request, kw_only=True):
    """Where in its file a piece begins; the queen is also told for which node it is."""

    offset: _OFFSET
    node: Name | None = None


class Received(Message, kw_only=True):
    """The bytes of the file that are on the node now; a piece that does not begin there was not taken."""

    offset: _OFFSET


def part_names(name: str) -> list[str]:
    """Return the names of all files of a model, given that of any; a split model has several, in order.

    Raises ValueError for a number of parts that no model has.
    """
    if (found := SplitName.parse(name)) is None:
        return [name]
    if not 1 <= found.parts <= MAX_PARTS:
        raise ValueError(found.parts)
    return found.all()
