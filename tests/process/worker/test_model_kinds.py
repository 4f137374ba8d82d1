"""What `rbee model-header` says about files that no worker can run, while they are whole and while they are fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rbee.wire import model_kind
from rbee.wire.gguf import ModelHeader
from tests.kit import models
from tests.kit import odd_models as odd
from tests.kit.worker_child import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOT_TEXT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "bert": (lambda path: odd.chain(path, "bert", attention__causal=False, pooling_type=1), "embeddings"),
    "embeddings of a causal model": (lambda path: odd.chain(path, "qwen3", pooling_type=3), "embeddings"),
    "reranker": (lambda path: odd.chain(path, pooling_type=4), "reranker"),
    "not causal": (lambda path: odd.chain(path, attention__causal=False), "not_causal"),
    "t5": (odd.encoder_decoder, "encoder_decoder"),
    "llada": (lambda path: odd.chain(path, "llada", attention__causal=False), "diffusion"),
    "projector": (lambda path: odd.bare(path, "clip", odd.MATRIX, general__type="mmproj"), "projector"),
    "older projector": (lambda path: odd.bare(path, "clip", odd.MATRIX, clip__has_vision_encoder=True), "projector"),
    "lora": (lambda path: odd.bare(path, "llama", odd.MATRIX, general__type="adapter"), "adapter"),
    "older lora": (lambda path: odd.bare(path, "qwen2", odd.MATRIX, adapter__type="lora"), "adapter"),
    "control vector": (
        lambda path: odd.bare(path, "controlvector", ("direction.1", odd.MATRIX[1]), controlvector__layer_count=1),
        "control_vector",
    ),
    "imatrix": (lambda path: odd.bare(path, "imatrix", odd.MATRIX, general__type="imatrix"), "calibration"),
    "vocabulary alone": (
        lambda path: odd.chain(path, without=tuple(name for name, _ in odd.tensors())), "vocabulary",
    ),
    "no_vocab": (
        lambda path: odd.chain(path, vocabulary=lambda writer: writer.add_tokenizer_model("no_vocab")), "no_vocabulary",
    ),
    "no tokenizer": (lambda path: odd.chain(path, vocabulary=odd.no_tokenizer), "no_vocabulary"),
}  # fmt: skip
UNSUPPORTED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "architecture": (lambda path: odd.chain(path, "bumblebee"), "does not know the architecture bumblebee"),
    "pictures": (lambda path: odd.bare(path, "flux", odd.MATRIX), "does not know the architecture flux"),
    "pre-tokenizer": (
        lambda path: odd.chain(path, vocabulary=odd.tokenizer("gpt2", "bee-2027")),
        "does not know the pre-tokenizer bee-2027",
    ),
    "tokenizer": (lambda path: odd.chain(path, vocabulary=odd.tokenizer("honeycomb")), "the tokenizer honeycomb"),
    "a tensor that is missing": (
        lambda path: odd.chain(path, without=("blk.0.ffn_norm.weight",)), "blk.0.ffn_norm.weight",
    ),
    "another width": (lambda path: odd.chain(path, embedding_length=128, rope__dimension_count=16), "wrong shape"),
    "a number that is missing": (lambda path: odd.chain(path, "lfm2"), "lfm2.shortconv.l_cache"),
}  # fmt: skip
UNREADABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tensor type of the future": (lambda path: odd.of_tensor_type(path, 144), "tensors of the type 144, which"),
    "tensor type that is gone": (lambda path: odd.of_tensor_type(path, 31), "type Q4_0_4_4, which this engine"),
    "tensor type that is gone, too": (lambda path: odd.of_tensor_type(path, 36), "type IQ4_NL_4_4, which this engine"),
    "tensor type of 2023": (lambda path: odd.of_tensor_type(path, 4), "type 4, which this engine no longer knows"),
    "version of the future": (lambda path: odd.of_version(path, 4), "version 4 of the GGUF format"),
    "version of the past": (lambda path: odd.of_version(path, 1), "version 1 of the GGUF format"),
    "other byte order": (odd.big_endian, "other byte order"),
}  # fmt: skip
SUPPORTED: dict[str, Callable[[Path], Path]] = {
    "chain": odd.chain,
    "older pre-tokenizer": lambda path: odd.chain(path, vocabulary=odd.tokenizer("gpt2", "gpt-2")),
    "no pooling": lambda path: odd.chain(path, pooling_type=0, attention__causal=True),
}
ALL = {
    **{f"kind: {name}": make for name, (make, _) in NOT_TEXT.items()},
    **{f"unsupported: {name}": make for name, (make, _) in UNSUPPORTED.items()},
    **{f"unreadable: {name}": make for name, (make, _) in UNREADABLE.items()},
    **{f"supported: {name}": make for name, make in SUPPORTED.items()},
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is printed about each file, and about each beginning of it that holds the header."""
    folder = tmp_path_factory.mktemp("odd")
    paths = {}
    for number, (name, make) in enumerate(ALL.items()):
        paths[name] = make(folder / f"m{number}.gguf")
        whole = paths[name].read_bytes()
        part = folder / f"m{number}.gguf.part"
        part.write_bytes(whole if "vocabulary alone" in name else whole[:-1000])  # the weights take more than that
        paths[f"{name}, part"] = f"{part}\t{len(whole)}"
    command = [sys.executable, "-m", "tests.kit.header_forks"]
    lines = "".join(f"{path}\n" for path in paths.values())
    done = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return {name: json.loads(json.loads(line)[3]) for name, line in zip(paths, done.stdout.splitlines(), strict=True)}


def header_of(printed: dict[str, dict[str, Any]], name: str) -> ModelHeader:
    return msgspec.convert(printed[name], ModelHeader)


@pytest.mark.parametrize("part", ["", ", part"])
@pytest.mark.parametrize("name", NOT_TEXT)
def test_what_writes_no_text_is_named(printed: dict[str, dict[str, Any]], name: str, part: str) -> None:
    header = header_of(printed, f"kind: {name}{part}")
    assert header.kind == NOT_TEXT[name][1]
    what, use = model_kind.KINDS[header.kind]
    assert what in model_kind.describe(header)
    refusal = model_kind.refusal(header, "bees.gguf")
    assert refusal is not None
    assert (refusal.code, refusal.hint, refusal.details["reason"]) == ("MODEL_LOAD_FAILED", use, "unsupported")
    assert what in refusal.message


@pytest.mark.parametrize("part", ["", ", part"])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_the_engine_does_not_know_is_named(printed: dict[str, dict[str, Any]], name: str, part: str) -> None:
    header = header_of(printed, f"unsupported: {name}{part}")
    assert header.kind == "text"
    assert UNSUPPORTED[name][1] in (header.unsupported or "")
    refusal = model_kind.refusal(header, "bees.gguf")
    assert refusal is not None
    assert "corrupt" not in refusal.message
    is_unknown = "does not know" in refusal.message
    assert ("nothing is wrong with the file" in (refusal.hint or "")) == is_unknown
    assert ("made for another version of llama.cpp, or wrongly" in (refusal.hint or "")) == (not is_unknown)


@pytest.mark.parametrize("part", ["", ", part"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_header_that_is_too_new_or_too_old_is_not_corrupt(
    printed: dict[str, dict[str, Any]], name: str, part: str
) -> None:
    error = printed[f"unreadable: {name}{part}"]["error"]
    assert error["details"]["reason"] == "unsupported"
    assert UNREADABLE[name][1] in error["message"]
    assert ".part" not in error["message"]


@pytest.mark.parametrize("part", ["", ", part"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_what_the_engine_runs_is_not_refused(printed: dict[str, dict[str, Any]], name: str, part: str) -> None:
    header = header_of(printed, f"supported: {name}{part}")
    assert (header.kind, header.unsupported) == ("text", None)
    assert model_kind.refusal(header, "bees.gguf") is None
    assert model_kind.describe(header) == "a text model, which this engine knows"


def test_a_kind_of_a_newer_version_is_named_and_not_refused() -> None:
    header = ModelHeader(architecture="bee", parameters=1, tensor_bytes=1, kind="dance")
    assert model_kind.describe(header).startswith("dance: ")
    assert model_kind.refusal(header, "bees.gguf") is None


def test_a_part_of_a_split_model_is_judged_without_the_others(tmp_path: Path) -> None:
    models.make(tmp_path / "bees.gguf", tensors_per_file=8)
    first = tmp_path / "bees-00001-of-00003.gguf"
    part = first.rename(tmp_path / "bees-00001-of-00003.gguf.part")
    command = [sys.executable, "-m", "rbee", "model-header", str(part), str(part.stat().st_size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    header = json.loads(done.stdout)
    assert (header["kind"], header["unsupported"]) == ("text", None)
