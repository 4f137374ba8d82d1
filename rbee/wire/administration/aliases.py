"""The queen's messages about aliases: further names of models."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.common import Message, Request, ShortText

ALIASES: Final = "/v2/models/aliases"
REMOVE: Final = "/v2/models/aliases/remove"


class AliasRequest(Request, kw_only=True):
    """A name, and what it is to stand for: a reference, or whatever else names a model, also with `@node`."""

    name: ShortText
    target: Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class AliasName(Request, kw_only=True):
    """Names an alias."""

    name: ShortText


class ModelAlias(Message, kw_only=True):
    """An alias: `source` is who has made it, the settings or a command.

    `model` is the reference of the model that it leads to, and `node` the node if it names one; where it leads nowhere,
    or hides a model of that name, `problem` says so.
    """

    name: str
    target: str
    source: Literal["settings", "command"]
    model: str | None = None
    node: str | None = None
    problem: str | None = None


class AliasList(Message, kw_only=True):
    aliases: list[ModelAlias]
