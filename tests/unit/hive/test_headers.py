"""A model's header is read once, as long as its files are the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rbee.errors import ModelLoadFailedError
from rbee.hive.catalogue.headers import REMEMBERED, Headers
from rbee.wire.gguf import ModelHeader

if TYPE_CHECKING:
    from pathlib import Path


class Reader:
    """Reads as architecture what a file holds, and remembers which files it has read."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def read(self, path: Path) -> ModelHeader:
        return self._read(path)

    def _read(self, path: Path) -> ModelHeader:
        self.names.append(path.name)
        if not path.exists():
            raise ModelLoadFailedError("there is none")
        return ModelHeader(architecture=path.read_text(), parameters=1, tensor_bytes=1)


async def test_a_header_is_read_once_until_its_file_changes(tmp_path: Path) -> None:
    reader = Reader()
    headers = Headers(reader.read)
    path = tmp_path / "m.gguf"
    path.write_text("bee")
    for _ in range(3):
        assert (await headers.read(path)).architecture == "bee"
    assert reader.names == ["m.gguf"]
    other = tmp_path / "new"
    other.write_text("ant")
    os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert (await headers.read(path)).architecture == "ant", "of the same size and time, but another file"
    path.write_text("wasp")
    assert (await headers.read(path)).architecture == "wasp"
    assert reader.names == ["m.gguf"] * 3


async def test_another_part_of_a_split_model_counts_too(tmp_path: Path) -> None:
    reader = Reader()
    headers = Headers(reader.read)
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    for path in (first, second):
        path.write_text("bee")
    await headers.read(first)
    second.write_text("longer")
    await headers.read(first)
    assert reader.names == [first.name] * 2


async def test_a_failure_is_not_remembered_and_memory_is_bounded(tmp_path: Path) -> None:
    reader = Reader()
    headers = Headers(reader.read)
    path = tmp_path / "m.gguf"
    for _ in range(2):
        with pytest.raises(ModelLoadFailedError):
            await headers.read(path)
    path.write_text("bee")
    assert (await headers.read(path)).architecture == "bee"
    for number in range(REMEMBERED):
        one = tmp_path / f"{number}.gguf"
        one.write_text("bee")
        await headers.read(one)
    reader.names.clear()
    await headers.read(tmp_path / "0.gguf")
    assert reader.names == []
    await headers.read(path)
    assert reader.names == ["m.gguf"]
