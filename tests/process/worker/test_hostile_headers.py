"""Files that lie about themselves: each is told from a model, at once, with little memory, and the hive lives on."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.wire.gguf import ModelHeader
from tests.conftest import ROOT
from tests.kit.samples import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Daemons

SECONDS, BYTES = 2.0, 200_000_000
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
GIGABYTE = 1 << 30


class Took(NamedTuple):
    code: int
    memory: int
    seconds: float
    printed: str

    def check(self) -> None:
        """Fail unless this is a header, an error in words, or a reader that was ended early by its limits."""
        assert self.seconds < SECONDS
        assert self.memory < BYTES
        if self.code == 0:
            header = msgspec.json.decode(self.printed, type=ModelHeader)
            assert header.architecture.isprintable()
            assert 0 <= (header.kv_bytes_per_token() or 0) <= 1 << 32
            assert (header.context_length or 0) >= 0
        elif self.code == 1:
            error = json.loads(self.printed)["error"]
            assert error["code"] == "MODEL_LOAD_FAILED"
            assert error["details"]["reason"] in ("corrupt", "not_gguf", "missing", "unsupported")
            assert "/" not in error["message"]
        else:
            assert self.code < 0
            assert self.printed == ""


class Reader:
    """Reads files as `rbee model-header` does; a process for each, without the start of Python for each."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "model.gguf"
        command = [sys.executable, "-m", "tests.kit.header_forks"]
        self._child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self, content: bytes, *, length: int | None = None) -> Took:
        """Read a file of this content, or one of `length` bytes that begins with it, and check what that took."""
        self._path.write_bytes(content)
        if length is not None:
            os.truncate(self._path, length)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{self._path}\n")
        self._child.stdin.flush()
        took = Took(*json.loads(self._child.stdout.readline()))
        took.check()
        return took

    def close(self) -> None:
        self._child.communicate()
        self._path.unlink()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    found = Reader(tmp_path_factory.mktemp("hostile"))
    yield found
    found.close()


def head(*pairs: bytes, tensors: int = 0, count: int | None = None, version: int = 3) -> bytes:
    """Return a file's beginning that announces `count` pairs and `tensors` tensors, with the pairs that are there."""
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, len(pairs) if count is None else count) + b"".join(pairs)


def text(content: bytes, length: int | None = None) -> bytes:
    """Return a string that announces `length` bytes."""
    return struct.pack("<Q", len(content) if length is None else length) + content


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, content: bytes) -> bytes:
    """Return an array that announces `count` elements."""
    return struct.pack("<IQ", kind, count) + content


def number(value: int) -> bytes:
    return struct.pack("<I", value & 0xFFFFFFFF)


def tensor(name: bytes, *extents: int, kind: int = 1, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(extents) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(extents)}qIQ", count, *extents, kind, offset)


LLAMA = pair(b"general.architecture", STRING, text(b"llama"))


def llama(**numbers: int) -> bytes:
    """Return a header that names these numbers of the architecture."""
    pairs = [pair(f"llama.{key.replace('__', '.')}".encode(), U32, number(value)) for key, value in numbers.items()]
    return head(LLAMA, *pairs)


SMALL_HEADER = head(
    LLAMA,
    pair(b"general.name", STRING, text("Biene 🐝".encode())),
    pair(b"llama.block_count", U32, number(1)),
    pair(b"llama.attention.head_count", ARRAY, array(U32, 2, number(4) + number(8))),
    pair(b"tokenizer.ggml.tokens", ARRAY, array(STRING, 3, text(b"<s>") + text(b"") + text(b"bee"))),
    pair(b"tokenizer.ggml.eos_token_id", U64, struct.pack("<Q", 2)),
    tensors=1,
) + tensor(b"output.weight", 32, 2)
SMALL = SMALL_HEADER + bytes(31 + 128)
"""A whole model of few bytes; its tensor begins at a multiple of 32."""

LIES = {
    "no version": b"GGUF",
    "version 0": head(LLAMA, version=0),
    "version 1": head(LLAMA, version=1),
    "version of the future": head(LLAMA, version=4_000_000_000),
    "the other byte order": struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    "nothing at all": head(),
    "no pair where 2^63 are": head(LLAMA, count=1 << 63),
    "no pair where 2^31 are": head(LLAMA, count=1 << 31),
    "2^62 tensors": head(LLAMA, tensors=1 << 62),
    "2^31 tensors": head(LLAMA, tensors=1 << 31),
    "a key of 2^63 bytes": head(text(b"x", 1 << 63)),
    "a key of 1 GB": head(text(b"x", GIGABYTE)),
    "a string of 2^64 - 1 bytes": head(LLAMA, pair(b"x", STRING, text(b"x", (1 << 64) - 1))),
    "a string of 1 GB": head(LLAMA, pair(b"x", STRING, text(b"x", GIGABYTE))),
    "2^61 numbers": head(LLAMA, pair(b"x", ARRAY, array(F64, 1 << 61, b"x"))),
    "10^9 numbers": head(LLAMA, pair(b"x", ARRAY, array(U64, 10**9, b"x"))),
    "2^63 strings": head(LLAMA, pair(b"x", ARRAY, array(STRING, 1 << 63, text(b"x")))),
    "10^9 strings": head(LLAMA, pair(b"x", ARRAY, array(STRING, 10**9, text(b"x")))),
    "an array in an array": head(LLAMA, pair(b"x", ARRAY, array(ARRAY, 1, array(U8, 1, b"x")))),
    "arrays, 10000 deep": head(LLAMA, pair(b"x", ARRAY, array(ARRAY, 1, b"") * 10_000)),
    "no such type": head(LLAMA, pair(b"x", 13, bytes(8))),
    "no such type of elements": head(LLAMA, pair(b"x", ARRAY, array(77, 1, bytes(8)))),
    "a key twice": head(LLAMA, LLAMA),
    "a key without a name": head(LLAMA, pair(b"", U32, number(1))),
    "an architecture that is a number": head(pair(b"general.architecture", U32, number(1))),
    "an architecture without a name": head(pair(b"general.architecture", STRING, text(b""))),
    "a tensor of no extent": head(LLAMA, tensors=1) + tensor(b"t", 0),
    "a tensor of negative extent": head(LLAMA, tensors=1) + tensor(b"t", -1),
    "a tensor of 2^124 weights": head(LLAMA, tensors=1) + tensor(b"t", 1 << 62, 1 << 62),
    "a tensor of 2^62 weights": head(LLAMA, tensors=1) + tensor(b"t", 1 << 31, 1 << 31),
    "a tensor of 2^32 dimensions": head(LLAMA, tensors=1) + tensor(b"t", 1, dimensions=0xFFFFFFFF),
    "a tensor of 5 dimensions": head(LLAMA, tensors=1) + tensor(b"t", 1, 1, 1, 1, 1),
    "a tensor of no such type": head(LLAMA, tensors=1) + tensor(b"t", 32, kind=0xFFFFFFFF),
    "a tensor of half a block": head(LLAMA, tensors=1) + tensor(b"t", 33, kind=2),
    "a tensor far away": head(LLAMA, tensors=1) + tensor(b"t", 32, offset=1 << 62),
    "a tensor whose name is too long": head(LLAMA, tensors=1) + tensor(b"t" * 200, 32),
    "a tensor twice": head(LLAMA, tensors=2) + tensor(b"t", 32) + tensor(b"t", 32, offset=64),
    "an alignment of 0": head(LLAMA, pair(b"general.alignment", U32, number(0))),
    "an alignment of 3": head(LLAMA, pair(b"general.alignment", U32, number(3))),
    "an alignment that is a text": head(LLAMA, pair(b"general.alignment", STRING, text(b"32"))),
    "a cache that no machine has": llama(
        block_count=-1, attention__head_count_kv=-1, attention__key_length=-1, attention__value_length=-1
    ),
    "fewer than no heads": head(LLAMA, pair(b"llama.attention.head_count", I32, number(-8))),
    "part of a split model by another name": head(
        LLAMA, pair(b"split.count", U16, struct.pack("<H", 3)), pair(b"split.no", U16, struct.pack("<H", 0))
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_an_error_in_words(reader: Reader, name: str) -> None:
    assert reader.read(LIES[name]).code == 1


@pytest.mark.parametrize("name", [name for name in LIES if "GB" in name or "10^9" in name])
def test_a_lie_that_the_files_length_bears_out_takes_no_more(reader: Reader, name: str) -> None:
    assert reader.read(LIES[name], length=1 << 34).code != 0


ODD = {
    "an architecture that is no UTF-8": head(pair(b"general.architecture", STRING, text(b"\xff\xfebee"))),
    "an architecture that is a terminal's": head(pair(b"general.architecture", STRING, text(b"\x1b[2J%s%n\r\n\0"))),
    "a name without an end": head(LLAMA, pair(b"general.name", STRING, text("🐝".encode() * 1_000_000))),
    "a key that is no UTF-8": head(LLAMA, pair(b"\xff", U32, number(1))),
    "a truth that is neither": head(LLAMA, pair(b"x", BOOL, b"\7")),
    "a width of no heads": llama(embedding_length=100, attention__head_count=0),
    "an array of no heads": head(LLAMA, pair(b"llama.attention.head_count", ARRAY, array(U32, 0, b""))),
    "a million heads": head(LLAMA, pair(b"llama.attention.head_count", ARRAY, array(U32, 10**6, bytes(4 * 10**6)))),
    "50,000 keys": head(LLAMA, *(pair(b"%d" % at, U8, b"1") for at in range(50_000))),
    "500,000 strings": head(LLAMA, pair(b"x", ARRAY, array(STRING, 500_000, text(b"") * 500_000))),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_and_no_lie_is_shown(reader: Reader, name: str) -> None:
    assert reader.read(ODD[name]).code == 0


def test_a_header_that_is_larger_than_any_models_is_given_up(reader: Reader) -> None:
    count = 5_000_000
    assert reader.read(head(LLAMA, pair(b"x", ARRAY, array(STRING, count, bytes(8 * count))))).code != 0
    assert reader.read(head(LLAMA, pair(b"x", ARRAY, array(U8, 16 * count, bytes(16 * count))))).code != 0


def test_a_file_cut_off_anywhere_is_an_error_in_words(reader: Reader, request: pytest.FixtureRequest) -> None:
    needed = -(-len(SMALL_HEADER) // 32) * 32 + 128
    # Numbers have 4 or 8 bytes: each of a number's first bytes is tried, at other numbers.
    for length in range(0, needed, 1 if request.config.getoption("--full") else 5):
        assert reader.read(SMALL[:length]).code == 1, length
    assert reader.read(SMALL[:needed]).code == 0


@samples(50)
@given(data=st.data())
def test_what_is_changed_anywhere_is_a_header_or_an_error(reader: Reader, data: st.DataObject) -> None:
    changed = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(SMALL) - 8))
        value = data.draw(st.one_of(st.integers(0, 16), st.sampled_from([1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1])))
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        changed[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    assert reader.read(bytes(changed)).code in (0, 1)


VALUES = st.one_of(
    st.tuples(st.just(U32), st.integers(0, 2**32 - 1).map(number)),
    st.tuples(st.just(I32), st.integers(-(2**31), 2**31 - 1).map(number)),
    st.tuples(st.just(STRING), st.binary(max_size=40).map(text)),
    st.tuples(st.just(ARRAY), st.builds(array, st.integers(0, 14), st.integers(0, 2**64 - 1), st.binary(max_size=40))),
    st.tuples(st.integers(0, 14), st.binary(max_size=16)),
)
KEYS = st.sampled_from(
    [
        *("general.name", "general.file_type", "general.alignment", "split.count", "split.no"),
        *("llama.block_count", "llama.context_length", "llama.embedding_length", "llama.attention.head_count"),
        *("llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.value_length"),
        *("llama.vocab_size", "tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template"),
    ]
)


@samples(50)
@given(pairs=st.dictionaries(KEYS, VALUES, max_size=8))
def test_values_of_any_type_are_a_header_or_an_error(reader: Reader, pairs: dict[str, tuple[int, bytes]]) -> None:
    content = head(LLAMA, *(pair(key.encode(), kind, value) for key, (kind, value) in pairs.items()))
    assert reader.read(content).code in (0, 1)


def test_the_hive_outlives_whatever_a_file_does_to_its_reader(daemons: Daemons, tmp_path: Path) -> None:
    count = 5_000_000
    files = {
        "kills.gguf": (head(LLAMA, pair(b"x", ARRAY, array(STRING, count, bytes(8 * count)))), "native code gave up"),
        "nothing.gguf": (b"", "is not a GGUF file"),
        "cut.gguf": (SMALL[:100], "is corrupt or cut off"),
        "short.gguf": (SMALL[:-100], "is cut off"),
        "numbers.gguf": (LIES["a cache that no machine has"], "numbers that no model has"),
    }
    daemon = daemons.start("hive")
    with daemon.client() as client:
        for name, (content, words) in files.items():
            (tmp_path / name).write_bytes(content)
            reference = f"file:{tmp_path / name}"
            for answer in (
                client.get("/v1/models/show", params={"model_ref": reference}),
                client.post("/v1/workers/spawn", json={"model_ref": reference}),
            ):
                error: dict[str, Any] = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (500, "MODEL_LOAD_FAILED")
                assert name in error["message"]
                assert words in error["message"]
                assert str(tmp_path) not in answer.text
        assert client.get("/v1/workers/list").json() == {"workers": []}
    assert daemon.process.poll() is None
