"""The names of kept parts, and which of them RAM holds."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.state_store import StoredPart
from rbee.worker.prefix_store import unwritten
from rbee.worker.prefix_store.keys import block_keys, whole_keys
from rbee.worker.prefix_store.part_file import PartName
from rbee.worker.prefix_store.recent_parts import RecentParts
from rbee.worker.prefix_store.unwritten import UnwrittenParts

if TYPE_CHECKING:
    import pytest

TOKENS = st.lists(st.integers(0, 2), max_size=12)
SALT = st.sampled_from([b"", b"a", b"b", b"a" * 100])


@given(TOKENS, TOKENS, SALT, SALT)
def test_two_prompts_share_the_keys_of_what_they_have_in_common(
    one: list[int], two: list[int], salt: bytes, other: bytes
) -> None:
    common = 0
    while salt == other and common < min(len(one), len(two)) and one[common] == two[common]:
        common += 1
    first, second = (dict(block_keys(*which, 3)) for which in ((salt, one), (other, two)))
    for end, key in first.items():
        assert (second.get(end) == key) == (end <= common)
    lengths = range(1, 13)
    first, second = (dict(whole_keys(*which, lengths)) for which in ((salt, one), (other, two)))
    assert list(first) == list(range(1, len(one) + 1))
    for end, key in first.items():
        assert (second.get(end) == key) == (end <= common)


def test_no_part_of_one_kind_has_the_name_of_one_of_the_other() -> None:
    tokens = array("i", range(64))
    assert not {key for _, key in block_keys(b"", tokens, 32)} & {key for _, key in whole_keys(b"", tokens, [32, 64])}


def test_ram_holds_what_was_used_last() -> None:
    ram = RecentParts(100)
    for number in range(4):
        assert ram.put(bytes([number]), StoredPart(0, 1, bytes(25))) == []
    ram.use([b"\2", b"\0", b"\1", b"unknown"])
    assert ram.put(b"new", StoredPart(0, 1, bytes(50))) == [b"\3", b"\2"]
    assert ram.bytes == 100
    ram.limit = 60
    assert ram.shrink() == [b"\0", b"\1"]
    assert ram.put(b"too large", StoredPart(0, 1, bytes(61))) == [b"new", b"too large"]
    assert ram.bytes == 0


def test_what_waits_for_the_disk_alone_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwritten, "MOST_BYTES", 100)
    waiting = UnwrittenParts()
    for number in range(5):
        waiting.put(bytes([number]), StoredPart(0, 1, bytes(40)))
    for number in range(4):
        waiting.keep_alone(bytes([number]))
    assert waiting.own_bytes == 80
    assert [bytes([number]) in waiting for number in range(5)] == [True, True, False, False, True]
    assert waiting.takes_more
    for number in range(5):
        waiting.remove(bytes([number]))
    assert (waiting.own_bytes, bool(waiting)) == (0, False)
    # One that is larger than all that may wait is written nevertheless.
    waiting.put(b"large", StoredPart(0, 1, bytes(1000)))
    waiting.keep_alone(b"large")
    assert waiting.first() == (b"large", StoredPart(0, 1, bytes(1000)))
    assert not waiting.takes_more


def test_the_name_of_a_file_says_what_it_is() -> None:
    name = PartName.of(bytes(range(16)), StoredPart(64, 128, bytes(5)))
    assert PartName.parse(str(name)) == name
    for other in (
        "",
        "CACHEDIR.TAG",
        ".new-00",
        f"{name}x",
        f"x{name}",
        str(name).upper(),
        str(name).replace("-", "_"),
    ):
        assert PartName.parse(other) is None
