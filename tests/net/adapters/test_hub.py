"""What the hub says of repositories, the user's token, and the user's own cache."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.download import hub as adapter
from rbee.adapters.download import hub_cache
from rbee.adapters.download.web import Web
from rbee.adapters.download.web_errors import BrokenError
from rbee.errors import DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError
from rbee.wire.hub import HubFile, Repository
from tests.kit.hub import REVISION, Hub
from tests.kit.hub_cache import store as cached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
        (tmp_path / "m.gguf").write_bytes(b"GGUF" * 100)
        (tmp_path / "README.md").write_text("small")
        hub.add("bees/model", tmp_path / "m.gguf")
        hub.add("bees/model", tmp_path / "README.md", is_large=False)
        yield hub


def ask(hub: Hub, repository: str, token: str | None = None) -> Repository:
    with Web(adapter.endpoint(), token) as web:
        return adapter.files(web, repository)


def test_the_files_come_with_size_and_hash(hub: Hub) -> None:
    found = ask(hub, "bees/model")
    sha256 = hub.repositories["bees/model"].files["m.gguf"].sha256
    assert found == Repository("bees/model", REVISION, [HubFile("m.gguf", 400, sha256), HubFile("README.md", 5, None)])
    assert adapter.address(found, "a b/m.gguf") == f"{hub.url}/bees/model/resolve/{REVISION}/a%20b/m.gguf"


def test_what_is_not_there_or_not_for_us_says_so(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError):
        ask(hub, "bees/none")
    hub.protect("bees/model", "hf_x")
    with pytest.raises(ModelAccessDeniedError, match="private"):
        ask(hub, "bees/model")
    with pytest.raises(ModelAccessDeniedError, match="does not open it"):
        ask(hub, "bees/model", "hf_other")
    assert ask(hub, "bees/model", "hf_x").files


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


GZIP = {"Content-Encoding": "gzip"}
PACKED: list[tuple[str, Callable[[bytes], bytes], dict[str, str]]] = [
    ("gzip", gzip.compress, {"Content-Encoding": "gzip"}),
    ("x-gzip", gzip.compress, {"Content-Encoding": "X-GZip"}),
    ("gzip that no header names", gzip.compress, {}),
    (
        "gzip in two members",
        lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),
        {"Content-Encoding": "gzip"},
    ),
    ("gzip unpacked on its way", bytes, {"Content-Encoding": "gzip"}),
    ("gzip twice", lambda body: gzip.compress(gzip.compress(body)), {"Content-Encoding": "gzip, gzip"}),
    ("deflate", zlib.compress, {"Content-Encoding": "deflate"}),
    ("deflate as some send it", raw_deflate, {"Content-Encoding": "deflate"}),
    ("BOM", lambda body: b"\xef\xbb\xbf" + body, {}),
    ("BOM in gzip", lambda body: gzip.compress(b"\xef\xbb\xbf" + body), {"Content-Encoding": "gzip"}),
    ("UTF-16", lambda body: body.decode().encode("utf-16"), {"Content-Type": "application/json; charset=utf-16"}),
    ("UTF-16 that no header names", lambda body: body.decode().encode("utf-16-le"), {}),
    ("UTF-32", lambda body: body.decode().encode("utf-32"), {}),
    ("text/plain", bytes, {"Content-Type": "text/plain"}),
    ("a charset that is none", bytes, {"Content-Type": "application/json; charset=klingon"}),
    ("latin-1 named, UTF-8 sent", bytes, {"Content-Type": "application/json; charset=latin-1"}),
]


@pytest.mark.parametrize(("pack", "headers"), [case[1:] for case in PACKED], ids=[case[0] for case in PACKED])
def test_an_answer_is_read_however_it_is_packed(
    pack: Callable[[bytes], bytes], headers: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").rename(tmp_path / "größe.gguf")
    hub.add("bees/other", tmp_path / "größe.gguf")
    hub.repack = lambda body: (pack(json.dumps(json.loads(body), ensure_ascii=False).encode()), headers)
    assert [file.name for file in ask(hub, "bees/other").files] == ["größe.gguf"]


def test_an_answer_in_latin_1_is_read_by_its_header(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").rename(tmp_path / "größe.gguf")
    hub.add("bees/other", tmp_path / "größe.gguf")
    kind = {"Content-Type": 'application/json; charset="ISO-8859-1"'}
    hub.repack = lambda body: (json.dumps(json.loads(body), ensure_ascii=False).encode("latin-1"), kind)
    assert [file.name for file in ask(hub, "bees/other").files] == ["größe.gguf"]


REFUSED: list[tuple[bytes, dict[str, str], str]] = [
    (b"\x0b\x02\x80", {"Content-Encoding": "br"}, r"came packed \(br\)"),
    (b"\x28\xb5\x2f\xfd", {"Content-Encoding": "zstd"}, r"came packed \(zstd\)"),
    (gzip.compress(b"{}")[:-9], {"Content-Encoding": "gzip"}, "cut short"),
    (b"\x1f\x8b nonsense", {"Content-Encoding": "gzip"}, "cannot be unpacked"),
    (b"<html>log in</html>", {"Content-Type": "text/html"}, "as from a login"),
    (b"\n <!DOCTYPE html><title>Blocked</title>", {}, "as from a login"),
    (b"", {"Content-Type": "text/html"}, "as from a login"),
    (b"{", {}, "not what this version of rbee expects"),
    (b"\xff\xfe\xff", {}, "not what this version of rbee expects"),
    (b"[1]", {}, "not what this version of rbee expects"),
    (gzip.compress(b"[" * (65 << 20)), {"Content-Encoding": "gzip"}, "more than any list of files is"),
]


@pytest.mark.parametrize(("body", "headers", "said"), REFUSED, ids=range(len(REFUSED)))
def test_an_answer_that_is_none_is_refused_in_words(body: bytes, headers: dict[str, str], said: str, hub: Hub) -> None:
    hub.repack = lambda _: (body, headers)
    with pytest.raises((BrokenError, DownloadFailedError), match=said):
        ask(hub, "bees/model")


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http://", "http://x:bad"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(DownloadFailedError, match="no web address"):
        Web(endpoint, None)


def test_the_token_is_the_variables_else_the_files(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapter.token() is None
    file = tmp_path / ".cache" / "huggingface" / "token"
    file.parent.mkdir(parents=True)
    for text in ("hf_file\n", "\ufeffhf_file\r\n"):
        file.write_text(text)
        assert adapter.token() == "hf_file"
    monkeypatch.setenv("HF_TOKEN", " hf_variable ")
    assert adapter.token() == "hf_variable"


def test_a_token_that_is_not_to_be_sent_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert adapter.token() == "hf_old"
    for value, expected in (("0", "hf_old"), ("no", "hf_old"), ("1", None), ("True", None), ("ON", None)):
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", value)
        assert adapter.token() == expected


def test_a_pipe_in_place_of_the_token_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "pipe"))
    assert adapter.token() is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HOME": "$BEES/hf"}, "/bees/hf/hub"),
        ({"HF_HOME": "/hf", "HF_HUB_CACHE": "${BEES}/cache"}, "/bees/cache"),
        ({"HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEES", "/bees")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(hub_cache.root()) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_HUB_OFFLINE": "yes"}, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "True"}, "TRANSFORMERS_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "on"}, "TRANSFORMERS_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0"}, None),
        ({"HF_HUB_OFFLINE": ""}, None),
    ],
)
def test_who_says_not_to_ask(variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert adapter.offline() == expected


@pytest.mark.parametrize("token", ["hf_ä", "hf_a\nX-Other: 1", "hf_a b"])
def test_a_token_that_is_none_is_refused_and_not_shown(hub: Hub, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelAccessDeniedError) as caught:
        adapter.token()
    assert "hf_" not in str(caught.value.message)


def store(home: Path, name: str, content: bytes, sha256: str, snapshot: str = REVISION) -> Path:
    cache = home / ".cache" / "huggingface" / "hub"
    return cached(cache, "bees/model", name, content, sha256=sha256, revision=snapshot)


@pytest.mark.parametrize("snapshot", [REVISION, "f" * 40])
def test_a_file_in_the_users_cache_is_found_under_its_name(hub: Hub, tmp_path: Path, snapshot: str) -> None:
    found = ask(hub, "bees/model")
    model = found.files[0]
    assert hub_cache.find(found, [model]) is None
    link = store(tmp_path, "m.gguf", b"GGUF" * 100, str(model.sha256), snapshot)
    assert hub_cache.find(found, [model]) == [link]


def test_another_file_of_that_name_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    found = ask(hub, "bees/model")
    store(tmp_path, "m.gguf", b"GGUF" * 100, "0" * 64)
    assert hub_cache.find(found, found.files[:1]) is None
    store(tmp_path, "short.gguf", b"GGUF", "1" * 64)
    assert hub_cache.find(found, [HubFile("short.gguf", 5, None)]) is None


def test_a_split_model_is_taken_only_whole(hub: Hub, tmp_path: Path) -> None:
    found = ask(hub, "bees/model")
    parts = [HubFile(f"p-0000{number}-of-00002.gguf", 4, str(number) * 64) for number in (1, 2)]
    first = store(tmp_path, parts[0].name, b"GGUF", str(parts[0].sha256))
    assert hub_cache.find(found, parts) is None
    second = store(tmp_path, parts[1].name, b"GGUF", str(parts[1].sha256))
    assert hub_cache.find(found, parts) == [first, second]


def test_without_the_hub_the_cache_is_listed_its_main_branch_first(hub: Hub, tmp_path: Path) -> None:
    assert list(hub_cache.repositories("bees/model")) == []
    store(tmp_path, "m.gguf", b"GGUF" * 100, "1" * 64, "c" * 40)
    store(tmp_path, "deep/m.gguf", b"GGUF", "2" * 64, "a" * 40)
    store(tmp_path, "m.gguf", b"GGUF" * 2, "no-hash", "b" * 40)  # the last one is what `main` means
    store(tmp_path, "README.md", b"bees", "3" * 64, "b" * 40)
    gone = store(tmp_path, "gone.gguf", b"bees", "4" * 64, "b" * 40)
    gone.resolve().unlink()
    assert list(hub_cache.repositories("bees/model")) == [
        Repository("bees/model", "b" * 40, [HubFile("m.gguf", 8, None)]),
        Repository("bees/model", "a" * 40, [HubFile("deep/m.gguf", 4, "2" * 64)]),
        Repository("bees/model", "c" * 40, [HubFile("m.gguf", 400, "1" * 64)]),
    ]
    assert hub.asked == []


@pytest.mark.parametrize(
    "value",
    [
        "hub.example", "ftp://hub.example", "https://", "//hub.example", '"https://hub.example"', "https://a b",
        "http://[::1", "http://hub.example:port", "http://hub.example:99999", "https://:443", "https://me@",
    ],
)  # fmt: skip
def test_a_variable_that_names_no_hub_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(DownloadFailedError, match=r"^HF_ENDPOINT names no web address"):
        adapter.endpoint()


@pytest.mark.parametrize("value", ["https://hub.example/", " http://hub.example:8080/mirror ", "HTTPS://hub.example"])
def test_blanks_and_slashes_around_a_hub_do_not_matter(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    assert adapter.endpoint() == value.strip().rstrip("/")
