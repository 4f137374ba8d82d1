"""The API keys of a queen, with a real database: made, used, counted, revoked, and there again after a restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.store.sqlite import Store
from rbee.errors import InvalidRequestError, NotFoundError, StorageError
from rbee.queen.access.api_keys import COUNT_SECONDS, PREFIX, ApiKeys
from rbee.queen.access.key_table import TABLE, KeyTable
from rbee.queen.registry.table import MIGRATIONS, Registry
from rbee.wire.administration.keys import KeyRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await Store.open(tmp_path / "beehives.db", (*MIGRATIONS, TABLE))
    yield found
    await found.close()


async def loaded(store: Store, clock: Clock) -> ApiKeys:
    keys = ApiKeys(KeyTable(store), clock)
    await keys.load()
    return keys


async def test_a_key_is_known_again_and_stands_nowhere(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    keys = await loaded(store, clock)
    made = await keys.create(KeyRequest(name="alice", models=["small", "hf:o/r", "small"], expires_s=60))
    other = await keys.create(KeyRequest(name="bob"))
    assert made.key.startswith(PREFIX)
    assert len(made.key) == len(PREFIX) + 43 == len(other.key)
    for each in (keys, await loaded(store, clock)):
        alice = each.identify(made.key)
        assert alice is not None
        assert (alice.kind, alice.name, alice.models) == ("key", "alice", {"small", "hf:o/r"})
        assert [key.name for key in each.all()] == ["alice", "bob"]
        for wrong in (made.key[:-1], made.key + "x", made.key.upper(), "", PREFIX, "rbee_" + made.key[7:], "x" * 9999):
            assert each.identify(wrong) is None
    (info, _) = keys.all()
    assert (info.shown, info.expires_unix) == (made.key[:11], NOW + 60)
    written = b"".join([path.read_bytes() for path in tmp_path.iterdir()])  # noqa: ASYNC240 (a moment)
    assert made.key.encode() not in written
    assert made.key[len(PREFIX) :].encode() not in written


async def test_it_expires_to_the_second(store: Store) -> None:
    clock = Clock()
    keys = await loaded(store, clock)
    key = (await keys.create(KeyRequest(name="alice", expires_s=60))).key
    clock.now = NOW + 59.9
    assert keys.identify(key) is not None
    clock.now = NOW + 60
    assert keys.identify(key) is None
    assert [info.name for info in keys.all()] == ["alice"], "one sees that it has expired"


async def test_a_revoked_one_is_good_for_nothing_and_its_name_is_free(store: Store) -> None:
    clock = Clock()
    keys = await loaded(store, clock)
    old = (await keys.create(KeyRequest(name="alice"))).key
    identity = keys.identify(old)
    assert identity is not None
    assert keys.is_good(identity)
    await keys.revoke("alice")
    assert keys.identify(old) is None
    assert not keys.is_good(identity)
    keys.count("alice", generated_tokens=5)
    with pytest.raises(NotFoundError, match="there is no key alice"):
        await keys.revoke("alice")
    new = (await keys.create(KeyRequest(name="alice", expires_s=60))).key
    assert not keys.is_good(identity), "it is another's name now"
    again = await loaded(store, clock)
    assert (again.identify(old), again.identify(new)) == (None, keys.identify(new))
    with pytest.raises(NotFoundError) as caught:
        await keys.revoke("alcie")
    assert "did you mean alice?" in (caught.value.hint or "")
    identity = keys.identify(new)
    assert identity is not None
    clock.now += 60
    assert not keys.is_good(identity)


@pytest.mark.parametrize("name", ["alice", "token", "Local", "open", "public"])
async def test_a_name_that_is_taken_or_means_something_is_refused(store: Store, name: str) -> None:
    keys = await loaded(store, Clock())
    await keys.create(KeyRequest(name="alice"))
    with pytest.raises(InvalidRequestError) as caught:
        await keys.create(KeyRequest(name=name))
    assert caught.value.details["field"] == "name"
    assert len(keys.all()) == 1


async def test_two_at_once_with_one_name_make_one_key(store: Store) -> None:
    keys = await loaded(store, Clock())
    refused = []

    async def make() -> None:
        try:
            await keys.create(KeyRequest(name="alice"))
        except InvalidRequestError:
            refused.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(make)
    assert (len(refused), len(keys.all())) == (3, 1)


async def test_what_it_was_used_for_is_written_down(store: Store) -> None:
    clock = Clock()
    keys = await loaded(store, clock)
    await keys.create(KeyRequest(name="alice"))
    await keys.create(KeyRequest(name="bob"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        for _ in range(3):
            clock.now += 1
            keys.count("alice", prompt_tokens=10, cached_tokens=4, generated_tokens=5)
        keys.count("nobody", prompt_tokens=10)
        keys.close()
    alice, bob = (await loaded(store, clock)).all()
    assert (alice.requests, alice.prompt_tokens, alice.cached_tokens, alice.generated_tokens) == (3, 30, 12, 15)
    assert alice.last_used_unix == NOW + 3
    assert (bob.requests, bob.last_used_unix) == (0, None)


async def test_it_is_not_written_down_with_each_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table, written = KeyTable(store), []
    write = table.transact
    monkeypatch.setattr(table, "transact", lambda work: written.append(1) or write(work))
    keys = ApiKeys(table)
    await keys.create(KeyRequest(name="alice"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        for _ in range(50):
            keys.count("alice", generated_tokens=1)
            await trio.sleep(0.001)
        assert COUNT_SECONDS > 1
        assert written == []
        keys.close()
    assert written == [1]


async def test_a_disk_that_does_not_take_it_revokes_it_all_the_same_and_it_can_be_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = KeyTable(store)
    keys = ApiKeys(table)
    key = (await keys.create(KeyRequest(name="alice"))).key

    async def fail(_: str) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(table, "remove", fail)
        with pytest.raises(StorageError):
            await keys.revoke("alice")
        assert keys.identify(key) is None
        with pytest.raises(InvalidRequestError):
            await keys.create(KeyRequest(name="alice"))
    await keys.revoke("alice")
    await keys.create(KeyRequest(name="alice"))
    assert len((await loaded(store, Clock())).all()) == 1


async def test_a_damaged_entry_opens_nothing_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "beehives.db"
    store = await Store.open(file, (TABLE,))
    keys = ApiKeys(KeyTable(store))
    bad, good = [(await keys.create(KeyRequest(name=name))).key for name in ("bad", "good")]
    await store.close()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE api_keys SET models = '{' WHERE name = 'bad'")
    store = await Store.open(file, (TABLE,))
    keys = await loaded(store, Clock())
    assert keys.identify(bad) is None
    assert keys.identify(good) is not None
    with pytest.raises(InvalidRequestError) as caught:
        await keys.create(KeyRequest(name="bad"))
    assert "`rbee keys revoke bad`" in (caught.value.hint or "")
    await keys.revoke("bad")
    assert keys.identify((await keys.create(KeyRequest(name="bad"))).key) is not None
    await store.close()


async def test_an_earlier_version_passes_the_table_over(tmp_path: Path) -> None:
    """Else the version before could not be gone back to."""
    file = tmp_path / "beehives.db"
    await (await Store.open(file, (*MIGRATIONS, TABLE))).close()
    earlier = await Store.open(file, MIGRATIONS)
    assert await Registry(earlier).rows() == []
    await earlier.close()
    later = await Store.open(file, (*MIGRATIONS, TABLE))
    assert await KeyTable(later).rows() == []
    await later.close()
