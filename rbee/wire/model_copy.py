"""How hives copy models from each other: which node has which files, and where to get them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.wire.common import Count, HttpUrl, Message, Name, Request, Sha256, ShortText

FILES: Final = "/v1/models/files"
CONTENT: Final = "/v1/models/content/"
"""Followed by the SHA-256 of a file: a client names the content that it wants, and never a path."""


class OfferedFile(Request, kw_only=True):
    """A file of a model; `name` is that within its repository."""

    name: ShortText
    size_bytes: Count
    sha256: Sha256


class OfferedModel(Request, kw_only=True):
    """A model that may be copied, with its files in order; `is_meant` if the requested reference means it."""

    variant: ShortText
    is_meant: bool
    files: Annotated[list[OfferedFile], msgspec.Meta(min_length=1, max_length=999)]


class FileStat(Message, kw_only=True):
    """Size of a model, and when the last of its files was written; two alike in both are taken for the same one."""

    size_bytes: Count
    modified_ns: Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]


class Offers(Message, kw_only=True, omit_defaults=True):
    """The models of a repository on a node; `is_here` says whether the requested one is there.

    `file` is what a reference to a user's own file means there.
    """

    is_here: bool
    models: list[OfferedModel]
    file: FileStat | None = None


class Source(Request, kw_only=True):
    """A node that has models of a repository, and the URL at which its hive is reached."""

    node: Name
    url: HttpUrl
    models: Annotated[list[OfferedModel], msgspec.Meta(max_length=1000)]


Sources = Annotated[list[Source], msgspec.Meta(max_length=1000)]
