"""`rbee model-header`: a model's metadata, read in a process that may die of it."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rbee.wire.gguf import ModelHeader
from tests.kit.models import VOCABULARY, add_vocabulary, make
from tests.kit.odd_models import chain
from tests.kit.worker_child import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "rbee", "model-header", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=30)


def test_a_header_is_one_json_object(tmp_path: Path) -> None:
    done = read(make(tmp_path / "model.gguf"))
    assert (done.returncode, done.stderr) == (0, b"")
    header = msgspec.json.decode(done.stdout, type=ModelHeader)
    assert (header.architecture, header.name, header.quantisation) == ("llama", "test chain", "F16")
    assert (header.block_count, header.context_length, header.embedding_length) == (2, 2048, 512)
    assert (header.head_count, header.head_count_kv, header.key_length, header.value_length) == (8, 8, 64, 64)
    assert (header.vocabulary, header.end_token, header.has_chat_template) == (VOCABULARY, 2, False)
    assert header.tensor_bytes == pytest.approx(2 * header.parameters, rel=0.01)
    assert header.kv_bytes_per_token() == 2 * 2 * 8 * 128


@pytest.mark.parametrize(
    ("controls", "family"),
    [
        ((), "plain"),
        (("<|im_start|>",), "plain"),
        (("<|im_start|>", "<|im_end|>"), "ChatML"),
        (("<start_of_turn>", "<end_of_turn>", "<unused0>"), "Gemma"),
        (("[INST]", "[/INST]", "[é"), "Mistral"),
    ],
)
def test_a_model_without_a_chat_template_is_of_the_family_of_its_control_tokens(
    tmp_path: Path, controls: tuple[str, ...], family: str
) -> None:
    path = chain(tmp_path / "model.gguf", vocabulary=partial(add_vocabulary, controls=controls))
    header = msgspec.json.decode(read(path).stdout, type=ModelHeader)
    assert (header.has_chat_template, header.chat_family) == (False, family)


def test_one_that_brings_its_own_is_of_none(tmp_path: Path) -> None:
    header = msgspec.json.decode(read(make(tmp_path / "model.gguf", chat_template="{{}}")).stdout, type=ModelHeader)
    assert (header.has_chat_template, header.chat_family) == (True, None)


@pytest.mark.parametrize(
    ("template", "has_tools", "has_thinking"),
    [("{{ messages }}", False, False), ("x" * 10_000 + "{% if tools %}", True, False), ("<think>", False, True)],
)
def test_a_chat_template_says_what_the_model_can_do(
    tmp_path: Path, template: str, has_tools: bool, has_thinking: bool
) -> None:
    done = read(make(tmp_path / "model.gguf", chat_template=template))
    header = msgspec.json.decode(done.stdout, type=ModelHeader)
    assert (header.has_chat_template, header.has_tools, header.has_thinking) == (True, has_tools, has_thinking)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: b"", "not_gguf"),
        (lambda _: b"#!/bin/sh\n", "not_gguf"),
        (lambda whole: whole[:4], "corrupt"),
        (lambda whole: whole[:200], "corrupt"),
        (lambda whole: whole[:-1000], "corrupt"),
        (lambda whole: whole[:8] + b"\xff" * 16 + whole[24:], "corrupt"),
    ],
)
def test_what_is_no_model_is_an_error_object(tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str) -> None:
    whole = make(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(spoil(whole))
    done = read(path)
    assert done.returncode == 1
    error = msgspec.json.decode(done.stdout)["error"]
    assert (error["code"], error["details"]["reason"]) == ("MODEL_LOAD_FAILED", reason)
    assert str(tmp_path) not in error["message"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "the note that git keeps"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n<html><body>Log in</body>", "a web page"),
        (b'{"error": "Repository not found"}', "JSON"),
        (b'\x40\0\0\0\0\0\0\0{"__metadata__":{}}', "safetensors"),
        (b"PK\x03\x04\x14\0", "PyTorch"),
        (b"\x1f\x8b\x08\0", "a packed archive"),
        (b"tjgg\x01\0\0\0", "an older format"),
        (b"#!/bin/sh\n", "is not a GGUF file"),
    ],
)
def test_what_another_format_is_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    error = msgspec.json.decode(read(tmp_path / "m.gguf").stdout)["error"]
    assert error["message"].startswith("m.gguf is not a GGUF file")
    assert words in error["message"]
    assert error["details"]["reason"] == "not_gguf"


def split(folder: Path) -> list[Path]:
    """Make a model in several files, and return them in order."""
    make(folder / "bees.gguf", tensors_per_file=8)
    return sorted(folder.glob("bees-0*.gguf"))


def test_a_split_model_is_described_as_one(tmp_path: Path) -> None:
    first, *others = split(tmp_path)
    assert first.name == "bees-00001-of-00003.gguf"
    assert len(others) == 2
    header, of_one = (
        msgspec.json.decode(read(path).stdout, type=ModelHeader) for path in (first, make(tmp_path / "one.gguf"))
    )
    assert header == of_one


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        (lambda parts: parts[2].unlink(), "missing", "bees-00003-of-00003.gguf is not beside it"),
        (lambda parts: parts[1].write_bytes(b"GGUF"), "corrupt", "bees-00002-of-00003.gguf is corrupt"),
        (lambda parts: parts[1].write_bytes(parts[1].read_bytes()[:-99]), "corrupt", "00002-of-00003.gguf is cut off"),
        (lambda parts: parts[0].rename(parts[0].with_name("bees.gguf")), "corrupt", "end in -00001-of-00003.gguf"),
    ],
)
def test_a_split_model_that_is_not_whole_says_where(
    tmp_path: Path, spoil: Callable[[list[Path]], None], reason: str, words: str
) -> None:
    parts = split(tmp_path)
    spoil(parts)
    done = read(parts[0] if parts[0].exists() else tmp_path / "bees.gguf")
    error = msgspec.json.decode(done.stdout)["error"]
    assert (done.returncode, error["details"]["reason"]) == (1, reason)
    assert words in error["message"]


def test_of_a_split_model_the_first_file_is_to_be_named(tmp_path: Path) -> None:
    done = read(split(tmp_path)[1])
    message = msgspec.json.decode(done.stdout)["error"]["message"]
    assert done.returncode == 1
    assert "is file 2 of 3 of a split model: name the first one, bees-00001-of-00003.gguf" in message


def test_a_missing_file_is_an_error_object(tmp_path: Path) -> None:
    done = read(tmp_path / "none.gguf")
    assert done.returncode == 1
    assert msgspec.json.decode(done.stdout)["error"]["details"]["reason"] == "missing"


def test_wrong_usage_is_exit_code_2() -> None:
    assert read().returncode == 2


def test_spoilt_headers_never_hang_or_pass_for_something_else(tmp_path: Path) -> None:
    """Each ends with a header, an error object, or a dead child; whichever, the reader's parent can tell."""
    whole = make(tmp_path / "whole.gguf").read_bytes()
    chance = random.Random(5)
    for number in range(12):
        spoilt = bytearray(whole)
        for _ in range(20):
            spoilt[chance.randrange(4, 3000)] = chance.randrange(256)
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(spoilt)
        done = read(path)
        if done.returncode == 0:
            msgspec.json.decode(done.stdout, type=ModelHeader)
        elif done.returncode == 1:
            found: Any = msgspec.json.decode(done.stdout)
            assert found["error"]["code"] == "MODEL_LOAD_FAILED"
        else:
            assert done.returncode < 0
            assert done.stdout == b""


def test_it_imports_nothing_slow(tmp_path: Path) -> None:
    program = (
        "import sys; from rbee.worker.llama import header; code = header.main([sys.argv[1]]);"
        "slow = {'trio', 'quart', 'httpx', 'llama_cpp', 'psutil', 'numpy', 'asyncio'} & set(sys.modules);"
        "sys.exit(code or (print(slow, file=sys.stderr) or 3 if slow else 0))"
    )
    path = make(tmp_path / "model.gguf")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
