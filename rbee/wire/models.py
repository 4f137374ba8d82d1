"""The messages about models: those of a hive's catalogue, and the queen's about the catalogues of all nodes."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.wire.common import Count, Message, Moment, Name, Request, ShortText
from rbee.wire.gguf import ModelHeader  # noqa: TC001 (msgspec reads annotations at run time)
from rbee.wire.model_copy import Sources  # noqa: TC001 (msgspec reads annotations at run time)

LIST: Final = "/v1/models/list"
DOWNLOAD: Final = "/v1/models/download"
PROGRESS: Final = "/v1/models/download/progress"
SHOW: Final = "/v1/models/show"
MODEL: Final = "/v1/models/{id}"

SWARM_LIST: Final = "/v2/models/list"
SWARM_PULL: Final = "/v2/models/pull"
SWARM_REMOVE: Final = "/v2/models/remove"
SWARM_SHOW: Final = "/v2/models/show"

ModelId = Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f/]+\Z")]
"""A model's id in a catalogue: the stem of its first file."""


class ModelRow(Message, kw_only=True):
    """A model of the catalogue: `model_ref` names it, `reference` is that without provider and variant.

    `sha256` is that of its first file; times are Unix seconds, and it was last used when a worker was last started
    with it.
    """

    id: str
    model_ref: str
    provider: str
    reference: str
    variant: str
    local_path: str
    size_bytes: Count
    sha256: str | None
    downloaded_at_unix: Moment
    last_used_unix: Moment | None


class ModelList(Message, kw_only=True):
    models: list[ModelRow]


class ModelRequest(Request, kw_only=True):
    """Names a model by its reference."""

    model_ref: ShortText


class DownloadRequest(ModelRequest, kw_only=True):
    """Names a model that is to be here, and the nodes from which it may be copied."""

    sources: Sources = msgspec.field(default_factory=list)


class Download(Message, kw_only=True, omit_defaults=True):
    """A download has begun, or the model was there already: `download_id` or `local_path` is set."""

    download_id: str | None = None
    local_path: str | None = None


class DownloadQuery(Request, kw_only=True):
    """The query of a download's progress."""

    id: Name


class ModelDetails(Message, kw_only=True):
    """A model that is on a node: where, how large, and what its header says; `model` is its row, if it has one.

    `context` is how many tokens a request may have there; a hive of an earlier version does not say.
    """

    model_ref: str
    local_path: str
    size_bytes: Count
    model: ModelRow | None
    header: ModelHeader
    context: int | None = None


class NodeModel(Request, kw_only=True):
    """A model of a node, by its reference; of the queen's own host where no node is named."""

    model_ref: ShortText
    node: Name | None = None


class NodeModelId(Request, kw_only=True):
    """A model of a node's catalogue, by its id."""

    id: ModelId
    node: Name | None = None


class NodeModels(Message, kw_only=True):
    """The catalogue of one node; `error` says why it is not known."""

    node: str
    models: list[ModelRow]
    error: str | None = None


class SwarmModels(Message, kw_only=True):
    nodes: list[NodeModels]


class Removed(Message, kw_only=True):
    """A model was removed from a node's disk."""

    id: str
    node: str
    freed_bytes: Count
