"""The file that a user wants to push: found by its path, whatever its name, and checked before anything is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rbee.clients.local_model import LocalModel
from rbee.errors import RbeeError
from rbee.wire.model_push import part_names

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [
    "m.gguf",
    "my model (1).gguf",
    "größe+ü@v2~%20.gguf",
    "模型.gguf",
    "M.GGUF",
    "a..b.gguf",
    "it's 'm'.gguf",
    "-m.gguf",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_bytes(b"GGUF and more")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    expected = LocalModel.find(str(path))
    assert expected.reference == f"file:{path}"
    (file,) = expected.files
    assert (file.name, file.size_bytes, file.modified_ns) == (name, 13, path.stat().st_mtime_ns)
    for text in (name, f"./{name}", f"~/{name}", f"file:{path}", f"{tmp_path}/x/../{name}"):
        assert LocalModel.find(text) == expected


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    """As with the hub's own cache, where the blobs have no names."""
    (tmp_path / "blob").write_bytes(b"GGUF and more")
    (tmp_path / "m.gguf").symlink_to("blob")
    assert LocalModel.find(str(tmp_path / "m.gguf")).reference == f"file:{tmp_path / 'm.gguf'}"


def test_any_part_of_a_split_model_means_all(tmp_path: Path) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF")
    for name in names:
        found = LocalModel.find(str(tmp_path / name))
        assert found.reference == f"file:{tmp_path / names[0]}"
        assert [file.name for file in found.files] == names
    assert part_names("x-00001-of-00001.GGUF") == ["x-00001-of-00001.GGUF"]
    assert part_names("x-00001-of-2.gguf") == ["x-00001-of-2.gguf"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.gguf", b"<html>", "is not a GGUF file"),
        ("m.gguf", b"", "is not a GGUF file"),
        ("m.gguf", b"GGU", "is not a GGUF file"),
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1", "is not a GGUF file"),
        ("m.bin", b"GGUF", "their names end in .gguf"),
        ("m.gguf.part", b"GGUF", "their names end in .gguf"),
        ("m-00001-of-00002.gguf", b"GGUF", "there is no file"),
        ("m-00001-of-00000.gguf", b"GGUF", "no part of a split model"),
        ("m-00001-of-99999.gguf", b"GGUF", "no part of a split model"),
        ("folder.gguf", None, "is a folder"),
        ("none.gguf", None, "there is no file"),
        ("x" * 300 + ".gguf", None, "cannot be read"),
    ],
)
def test_what_is_no_model_is_said_at_once(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif said == "is a folder":
        (tmp_path / name).mkdir()
    with pytest.raises(RbeeError, match=said):
        LocalModel.find(str(tmp_path / name))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(RbeeError, match="is not a file"):
        LocalModel.find(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    "text", ["hf:bees/model", "builtin:bee-stories", "https://hf.co/bees/model/resolve/main/m.gguf"]
)
def test_what_is_not_on_this_machine_is_pulled(text: str) -> None:
    with pytest.raises(RbeeError, match="no file of this machine") as caught:
        LocalModel.find(text)
    assert "models pull" in str(caught.value.hint)
