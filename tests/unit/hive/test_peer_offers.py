"""Which model another node has for us."""

from __future__ import annotations

import pytest

from rbee.hive.catalogue.peer_offers import find, having
from rbee.wire import model_ref
from rbee.wire.hub import HubFile
from rbee.wire.model_copy import OfferedFile, OfferedModel, Source

A, B = "a" * 64, "b" * 64
M = model_ref.parse("hf:bees/model")


def source(node: str, *names: str, is_meant: bool = False, sha256: str = A) -> Source:
    files = [OfferedFile(name=name, size_bytes=10, sha256=sha256) for name in names]
    return Source(
        node=node,
        url="http://192.0.2.7:9200",
        models=[OfferedModel(variant="Q4_K_M", is_meant=is_meant, files=files)],
    )


def test_what_the_reference_means_elsewhere_is_meant_here() -> None:
    found = find(M, [source("attic", "x.gguf"), source("cellar", "y.gguf", is_meant=True)])
    assert found is not None
    assert (found.files, found.variant) == ([HubFile("y.gguf", 10, A)], "Q4_K_M")


def test_a_repository_alone_names_none_of_its_models() -> None:
    assert find(M, [source("attic", "x.Q4_K_M.gguf")]) is None


def test_a_file_that_is_named_is_meant_wherever_it_is() -> None:
    found = find(model_ref.parse("hf:bees/model/x.gguf"), [source("attic", "x.gguf")])
    assert found is not None
    assert found.files[0].name == "x.gguf"
    assert find(model_ref.parse("hf:bees/model/y.gguf"), [source("attic", "x.gguf")]) is None


@pytest.mark.parametrize(
    "names",
    [
        ("../x.gguf",),
        ("/etc/x.gguf",),
        ("a/../../x.gguf",),
        ("x.sh",),
        ("x-00001-of-00002.gguf",),
        ("x-00002-of-00002.gguf", "x-00001-of-00002.gguf"),
        ("x.gguf", "y.gguf"),
    ],
)
def test_files_that_we_would_not_write_are_no_model(names: tuple[str, ...]) -> None:
    assert find(M, [source("attic", *names, is_meant=True)]) is None


def test_the_files_of_a_split_model_belong_together() -> None:
    names = ("big/x-00001-of-00002.gguf", "big/x-00002-of-00002.gguf")
    found = find(M, [source("attic", *names, is_meant=True)])
    assert found is not None
    assert [file.name for file in found.files] == list(names)


def test_nodes_that_have_a_file_are_found_by_hash_and_size() -> None:
    sources = [source("attic", "x.gguf"), source("cellar", "other.gguf"), source("barn", "x.gguf", sha256=B)]
    assert [one.node for one in having(HubFile("x.gguf", 10, A), sources)] == ["attic", "cellar"]
    assert having(HubFile("x.gguf", 11, A), sources) == []
    assert having(HubFile("x.gguf", 10, None), sources) == []
