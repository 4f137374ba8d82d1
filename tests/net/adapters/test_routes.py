"""What the environment says about proxies and certificates, over real sockets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.download import certificates, web
from rbee.adapters.download.web import Web
from rbee.adapters.download.web_errors import BrokenError
from rbee.errors import DownloadFailedError
from tests.kit.forward_proxy import ForwardProxy
from tests.kit.hub import Hub
from tests.kit.ports import hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of the test may be behind a proxy itself."""
    for name in (*VARIABLES, *certificates.VARIABLES, "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(256)) * 40_000)
    with Hub() as found:
        found.add("bees/model", path)
        yield found


def fetch(hub: Hub) -> int:
    """Read a file of the hub, which redirects to another host; returns its length."""
    with Web(hub.url, None, may_be_private=True) as site, site.get(f"{hub.url}/bees/model/resolve/x/model.gguf") as one:
        return sum(len(part) for part in site.parts(one))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("http", "http://{}"),
        ("http", "{}"),
        ("http", "http://bee:s%40cret@{}/"),
        ("socks", "socks5://{}"),
        ("socks", "socks5h://{}"),
        ("socks", "socks://{}/"),
    ],
)
def test_a_proxy_is_used_for_each_host(hub: Hub, monkeypatch: pytest.MonkeyPatch, kind: str, value: str) -> None:
    assert kind in ("http", "socks")
    with ForwardProxy("http" if kind == "http" else "socks") as proxy:
        monkeypatch.setenv("ALL_PROXY", value.format(proxy.address))
        assert fetch(hub) == 256 * 40_000
    hosts = [asked.removeprefix("http://").partition("/")[0] for asked in proxy.asked]
    assert hosts == [hub.url.removeprefix("http://"), hub.second.removeprefix("http://")]


@pytest.mark.parametrize("exceptions", ["localhost,[::1],127.0.0.0/8", "127.0.0.1,127.0.0.2", "*", "127.*"])
def test_what_is_excepted_asks_no_proxy(hub: Hub, monkeypatch: pytest.MonkeyPatch, exceptions: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:port")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert fetch(hub) == 256 * 40_000


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["http://proxy:port", "socks4://127.0.0.1:1080", "http://me:pa#ss@proxy"])
def test_a_variable_that_names_no_proxy_is_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadFailedError, match=f"^{variable} names no proxy that can be used"):
        fetch(hub)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_not_there_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:secret@127.0.0.1:{hold_port()}")
    with pytest.raises(BrokenError, match=r"cannot be reached through the proxy .* that ALL_PROXY names") as caught:
        fetch(hub)
    assert "secret" not in str(caught.value)


def test_a_proxy_that_grants_nothing_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy("socks", refuses=True) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.address}")
        with pytest.raises(BrokenError, match="through the proxy socks5://"):
            fetch(hub)


def test_a_proxy_that_wants_a_password_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy("http", refuses=True) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://{proxy.address}")
        with pytest.raises(DownloadFailedError, match="407"):
            fetch(hub)


def test_a_socks_proxy_that_says_nothing_holds_nobody_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CONNECT_SECONDS", 1)
    with ForwardProxy("silent") as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.address}")
        with pytest.raises(BrokenError, match="through the proxy socks5://"):
            fetch(hub)


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("SSL_CERT_FILE", None),
        ("SSL_CERT_FILE", b""),
        ("SSL_CERT_FILE", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"),
        ("SSL_CERT_DIR", None),
        ("REQUESTS_CA_BUNDLE", None),
        ("REQUESTS_CA_BUNDLE", b"\xff\xfe"),
        ("CURL_CA_BUNDLE", b"no certificate\n"),
    ],
)
def test_a_file_of_certificates_that_holds_none_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: bytes | None
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    what = "a folder" if variable == "SSL_CERT_DIR" else "a file"
    with pytest.raises(DownloadFailedError, match=f"^{variable} names {what}, which holds no certificates"):
        fetch(hub)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_pipe_in_place_of_certificates_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(DownloadFailedError, match=f"^{variable} names what is no file"):
            certificates.context(os.environ)


@pytest.mark.parametrize("value", ["", "/", "/etc:/usr"])
def test_folders_of_certificates_may_be_empty(hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", value)
    assert fetch(hub) == 256 * 40_000


def test_certificates_of_a_company_are_trusted_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    trusted = certificates.context({}).cert_store_stats()["x509_ca"]
    with_one_more = {"REQUESTS_CA_BUNDLE": certifi.where()}
    assert certificates.context(with_one_more).cert_store_stats()["x509_ca"] >= trusted > 50


@pytest.mark.parametrize("value", ["/nowhere/keys", "/", "/proc/version"])
def test_a_log_of_keys_that_cannot_be_written_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", value)
    with pytest.raises(DownloadFailedError, match=r"^SSLKEYLOGFILE names a file, which cannot be written"):
        fetch(hub)
