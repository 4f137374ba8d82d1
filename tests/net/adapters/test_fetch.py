"""One file over real connections that break in every way."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.download.fetch import Fetch, Resource, Retry, Step
from rbee.adapters.download.web import Web
from rbee.adapters.download.web_errors import BrokenError
from rbee.errors import (
    ChecksumMismatchError,
    DownloadFailedError,
    InsufficientDiskError,
    ModelAccessDeniedError,
    ModelNotFoundError,
    RbeeError,
    StorageError,
)
from tests.kit import disk
from tests.kit.hub import REVISION, Fault, Hub
from tests.kit.stopwatch import Stopwatch
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
SIZE = 6_000_017
DELAYS = (0.01,) * 5


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def hub(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with Hub() as hub:
        hub.add("bees/model", file)
        yield hub


class Try:
    """Fetches the hub's file into a folder of its own, and keeps what was told."""

    def __init__(
        self, hub: Hub, folder: Path, *, token: str | None = None, private: bool = True, stall: float = 5
    ) -> None:
        file = hub.repositories["bees/model"].files["model.gguf"]
        self.to = folder / "here" / "model.gguf"
        self.part = self.to.with_name("model.gguf.part")
        self.told: list[Step | Retry] = []
        self.web = Web(hub.url, token, may_be_private=private, stall=stall)
        self.url = f"{hub.url}/bees/model/resolve/{REVISION}/model.gguf"
        self.resource = Resource(self.url, file.size, file.sha256)
        self.delays = DELAYS

    def start(self) -> Fetch:
        return Fetch(self.web, self.resource, self.to, self.delays, self.told.append)

    def run(self) -> bytes:
        with self.web:
            self.start().run()
        assert not self.part.exists()
        assert list(self.to.parent.iterdir()) == [self.to]
        return self.to.read_bytes()

    @property
    def retries(self) -> list[Retry]:
        return [event for event in self.told if isinstance(event, Retry)]

    @property
    def steps(self) -> list[int]:
        return [event.bytes_done for event in self.told if isinstance(event, Step) and not event.is_verifying]


def test_a_file_comes_whole_and_nothing_else_stays(hub: Hub, tmp_path: Path, content: bytes) -> None:
    attempt = Try(hub, tmp_path)
    assert attempt.run() == content
    assert attempt.retries == []
    assert attempt.told[-1] == Step(SIZE, is_verifying=True)
    assert hub.sent == SIZE


def test_a_reset_is_resumed_at_the_last_byte(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.then(Fault(reset=0.4))
    attempt = Try(hub, tmp_path)
    assert attempt.run() == content
    assert attempt.retries == [Retry(2, 6, 0.01, attempt.retries[0].reason)]
    assert "lost" in attempt.retries[0].reason
    at = int(SIZE * 0.4)
    _, again = hub.content()
    assert again.headers["Range"] == f"bytes={at}-"
    assert again.headers["If-Range"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert hub.sent == SIZE
    assert attempt.steps == sorted(attempt.steps), "the bar never goes back"


def test_an_attempt_after_each_delay(hub: Hub, tmp_path: Path) -> None:
    hub.fault = Fault(reset=0.4)
    attempt = Try(hub, tmp_path)
    attempt.delays = (0.005, 0.01, 0.02, 0.04, 0.08)
    with pytest.raises(DownloadFailedError) as caught, attempt.web:
        attempt.start().run()
    assert [retry.delay for retry in attempt.retries] == [0.005, 0.01, 0.02, 0.04, 0.08]
    assert [retry.attempt for retry in attempt.retries] == [2, 3, 4, 5, 6]
    assert len(hub.content()) == 6
    assert {"attempts": 6, "percent": 39}.items() <= caught.value.details.items()
    assert "lost" in caught.value.message
    assert attempt.part.stat().st_size == int(SIZE * 0.4), "it is kept for the next try"


def test_only_attempts_without_progress_count(hub: Hub, tmp_path: Path, content: bytes) -> None:
    """A line that breaks nine times, each time a tenth further."""
    hub.then(*(Fault(reset=tenth / 10) for tenth in range(1, 10)))
    attempt = Try(hub, tmp_path)
    attempt.delays = (0.01, 0.02)
    assert attempt.run() == content
    assert [(retry.attempt, retry.attempts, retry.delay) for retry in attempt.retries] == [(2, 3, 0.01)] * 9
    assert hub.sent == SIZE


@pytest.mark.parametrize(
    ("faults", "counted"),
    [
        ([Fault(reset=0.3)] * 9, [2, 3]),
        ([Fault(reset=0.3), Fault(reset=0.3), Fault(reset=0.5), *[Fault(status=503)] * 9], [2, 3, 2, 3]),
        ([Fault(end=0.3, no_range=True)] * 9, [2, 3]),
        ([Fault(reset=0.3 + step / SIZE) for step in range(9)], [2, 3]),
        ([*[Fault(reset=0.1)] * 2, Fault(stall=0.2), Fault(end=0.3), *[Fault(page=b"no")] * 9], [2, 3, 2, 2, 3]),
    ],
    ids=["none", "then-none", "from-the-beginning-each-time", "a-byte-each", "pages"],
)
def test_attempts_without_progress_end_it(faults: list[Fault], counted: list[int], hub: Hub, tmp_path: Path) -> None:
    hub.then(*faults)
    attempt = Try(hub, tmp_path, stall=0.3)
    attempt.delays = (0.01, 0.01)
    with pytest.raises(DownloadFailedError, match="after 3 attempts"), attempt.web:
        attempt.start().run()
    assert [retry.attempt for retry in attempt.retries] == counted


PAGE = b"<html>Please log in</html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(page=PAGE, headers=HTML), r"a page \(text/html\) came"),
        (Fault(page=PAGE), "26 bytes were announced where"),
        (Fault(page=PAGE, headers={"Content-Length": None}), "does not begin as the file does"),
        (Fault(page=PAGE + bytes(SIZE), headers={"Content-Length": None}), "does not begin as the file does"),
        (
            Fault(page=b'{"error": "quota"}', headers={"Content-Type": "application/json"}),
            r"a page \(application/json\)",
        ),
        (Fault(page=b"<Error/>", headers={"Content-Type": "application/xml"}), r"a page \(application/xml\)"),
        (Fault(page=b"", headers={"Content-Length": None}), "before the file began"),
        (Fault(page=b"", headers={"Content-Length": "0"}), "0 bytes were announced"),
        (Fault(page=PAGE, page_status=206, headers=HTML), r"a page \(text/html\) came"),
        (Fault(headers={"Content-Encoding": "gzip"}), r"came packed \(gzip\)"),
        (Fault(headers={"Content-Encoding": "br"}), r"came packed \(br\)"),
        (Fault(headers={"Content-Length": "4711"}), "4711 bytes were announced"),
        (Fault(headers={"Content-Type": "multipart/byteranges; boundary=x"}), r"a page \(multipart/byteranges\)"),
    ],
)
@pytest.mark.parametrize("have", [0, SIZE // 2], ids=["from-the-beginning", "resumed"])
def test_what_is_not_the_file_costs_nothing(
    have: int, fault: Fault, said: str, hub: Hub, tmp_path: Path, content: bytes
) -> None:
    """A login page, an error page, an answer that was packed: neither appended, nor in place of what is there."""
    attempt = Try(hub, tmp_path)
    attempt.resource = attempt.resource._replace(magic=content[:4])
    attempt.part.parent.mkdir()
    attempt.part.write_bytes(content[:have])
    hub.then(fault)
    assert attempt.run() == content
    (retry,) = attempt.retries
    assert re.search(said, retry.reason) or ("206" in str(fault) and "bytes were announced" in retry.reason)
    assert hub.content()[-1].sent == SIZE - have


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(headers={"Content-Range": "bytes 0-9/10"}), "another part of the file"),
        (Fault(headers={"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}), "another part of the file"),
        (Fault(headers={"Content-Range": f"bytes {SIZE // 2}-{SIZE - 1}/{SIZE + 1}"}), "another part of the file"),
        (Fault(headers={"Content-Range": f"bytes {SIZE // 2}-{SIZE - 2}/{SIZE}"}), "another part of the file"),
        (Fault(headers={"Content-Range": None}), "another part of the file"),
        (Fault(headers={"Content-Range": "octets 1"}), "another part of the file"),
        (Fault(headers={"ETag": '"other"'}), "another file there now"),
        (Fault(status=416), "does not go on"),
        (Fault(page=PAGE, page_status=416, headers=HTML), "does not go on"),
    ],
)
def test_a_part_that_is_not_the_next_is_not_appended(
    fault: Fault, said: str, hub: Hub, tmp_path: Path, content: bytes
) -> None:
    """The next attempt asks for the whole file, for such a site does not resume."""
    attempt = Try(hub, tmp_path)
    attempt.part.parent.mkdir()
    attempt.part.write_bytes(content[: SIZE // 2])
    attempt.part.with_name("model.gguf.part.etag").write_text(f'"{attempt.resource.sha256}"')
    hub.then(fault)
    assert attempt.run() == content
    assert [said in retry.reason for retry in attempt.retries] == [True]
    assert "Range" not in hub.content()[-1].headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Encoding": "identity"},
        {"ETag": None},
        {"ETag": 'W/"weak"'},
        {"Content-Length": None},
    ],
)
def test_what_a_plain_server_sends_is_taken(
    headers: dict[str, str | None], hub: Hub, tmp_path: Path, content: bytes
) -> None:
    attempt = Try(hub, tmp_path)
    attempt.resource = attempt.resource._replace(magic=content[:4])
    hub.then(Fault(reset=0.5, headers=headers), Fault(headers=headers))
    assert attempt.run() == content
    assert hub.sent == SIZE


def test_a_file_that_changed_meanwhile_comes_whole(hub: Hub, tmp_path: Path) -> None:
    hub.fault = Fault(reset=0.5)
    first = Try(hub, tmp_path)
    with pytest.raises(DownloadFailedError), first.web:
        first.start().run()
    hub.fault = Fault()
    other = os.urandom(SIZE)
    hub.repositories["bees/model"].files["model.gguf"].path.write_bytes(other)
    hub.add("bees/model", tmp_path / "model.gguf")
    sent = hub.sent
    assert Try(hub, tmp_path).run() == other
    assert hub.sent - sent == SIZE


def test_a_site_that_does_not_resume_sends_it_whole(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.then(Fault(reset=0.4), Fault(no_range=True))
    assert Try(hub, tmp_path).run() == content
    assert hub.sent == SIZE + int(SIZE * 0.4)


@pytest.mark.parametrize(
    "fault", [Fault(end=0.7), Fault(stall=0.3), Fault(status=503), Fault(status=429), Fault(extra=9)]
)
def test_what_another_attempt_mends(fault: Fault, hub: Hub, tmp_path: Path, content: bytes) -> None:
    """Fewer bytes than announced, silence, a server in trouble, more bytes than the file has."""
    hub.then(fault)
    attempt = Try(hub, tmp_path, stall=0.3)
    assert attempt.run() == content
    assert len(attempt.retries) == 1


@pytest.mark.parametrize(
    ("said", "pause"), [("1", 1), ("0", 0.01), ("soon", 0.01), ("-5", 0.01), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.01)]
)
def test_a_site_that_asks_for_a_pause_is_given_it(
    said: str, pause: float, hub: Hub, tmp_path: Path, content: bytes
) -> None:
    hub.then(Fault(status=429, retry_after=said))
    attempt = Try(hub, tmp_path)
    assert attempt.run() == content
    assert [retry.delay for retry in attempt.retries] == [pause]
    refused, again = (asked.at for asked in hub.asked if asked.host == "cdn")
    assert again - refused >= pause


def test_a_pause_is_given_within_reason(hub: Hub, tmp_path: Path) -> None:
    hub.fault = Fault(status=503, retry_after="999999999")
    attempt = Try(hub, tmp_path)

    def report(event: Step | Retry) -> None:
        attempt.told.append(event)
        if isinstance(event, Retry):
            fetch.stop()

    fetch = Fetch(attempt.web, attempt.resource, attempt.to, DELAYS, report)
    with pytest.raises(DownloadFailedError, match="given up"), attempt.web:
        fetch.run()
    assert [retry.delay for retry in attempt.retries] == [60]


def test_a_wrong_hash_is_fetched_once_more(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.then(Fault(wrong=True))
    attempt = Try(hub, tmp_path)
    assert attempt.run() == content
    assert hub.sent == 2 * SIZE
    assert "not what the hub says" in attempt.retries[0].reason


def test_a_hash_that_is_wrong_twice_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.fault = Fault(wrong=True)
    attempt = Try(hub, tmp_path)
    with pytest.raises(ChecksumMismatchError), attempt.web:
        attempt.start().run()
    assert list(attempt.to.parent.iterdir()) == []


def test_what_an_earlier_process_left_may_be_whole_already(hub: Hub, tmp_path: Path, content: bytes) -> None:
    attempt = Try(hub, tmp_path)
    attempt.part.parent.mkdir()
    attempt.part.write_bytes(content)
    assert attempt.run() == content
    assert hub.content() == []


def test_a_part_that_is_too_long_is_begun_anew(hub: Hub, tmp_path: Path, content: bytes) -> None:
    attempt = Try(hub, tmp_path)
    attempt.part.parent.mkdir()
    attempt.part.write_bytes(content + b"more")
    assert attempt.run() == content


def test_without_a_hash_only_a_known_version_is_resumed(hub: Hub, tmp_path: Path, content: bytes) -> None:
    attempt = Try(hub, tmp_path)
    attempt.resource = attempt.resource._replace(sha256=None)
    attempt.part.parent.mkdir()
    attempt.part.write_bytes(b"of another file")
    assert attempt.run() == content
    assert "Range" not in hub.content()[0].headers


def test_two_who_fetch_one_file_write_it_once(hub: Hub, tmp_path: Path, content: bytes) -> None:
    """Two hives may share a folder of models."""
    hub.fault = Fault(rate=SIZE * 4)
    tries = [Try(hub, tmp_path), Try(hub, tmp_path)]
    threads = [threading.Thread(target=attempt.start().run) for attempt in tries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for attempt in tries:
        attempt.web.__exit__()
    assert tries[0].to.read_bytes() == content
    assert hub.sent == SIZE


@pytest.mark.parametrize("fault", [Fault(stall=0.4), Fault(stall=0.0), Fault(rate=SIZE / 20)])
def test_it_is_given_up_from_another_thread_within_a_second(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    hub.fault = fault
    attempt = Try(hub, tmp_path, stall=60)
    fetch = attempt.start()
    failures: list[Exception] = []

    def run() -> None:
        try:
            fetch.run()
        except DownloadFailedError as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    while not hub.content():
        time.sleep(0.01)
    watch = Stopwatch()
    fetch.stop()
    thread.join(PATIENCE)
    assert watch.seconds() < 1
    assert "given up" in str(failures[0])
    attempt.web.__exit__()


def test_a_site_that_never_answers_is_given_up_too(hub: Hub, tmp_path: Path) -> None:
    """Before a header has come there is no response that could be closed."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        web = Web(f"http://127.0.0.1:{silent.getsockname()[1]}", None, stall=60)
        failures: list[BrokenError] = []

        def run() -> None:
            try:
                web.read(f"http://127.0.0.1:{silent.getsockname()[1]}/")
            except BrokenError as exc:
                failures.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        peer, _ = silent.accept()
        with peer:
            assert peer.recv(4) == b"GET "
            web.abandon()
            thread.join(1)
        assert str(failures[0]) == "given up"
        web.__exit__()


def test_the_token_goes_to_the_first_host_alone(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.protect("bees/model", "hf_secret")
    assert Try(hub, tmp_path, token="hf_secret").run() == content
    by_host = {asked.host: asked.headers for asked in hub.asked}
    assert by_host["hub"]["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in by_host["cdn"]
    assert "hf_secret" not in str(by_host["cdn"])


def test_a_password_in_the_sites_address_is_told_nobody(hub: Hub, tmp_path: Path, content: bytes) -> None:
    attempt = Try(hub, tmp_path)
    home = hub.url.replace("//", "//bee:secret@")
    attempt.web.__exit__()
    attempt.web = Web(home, None, may_be_private=True)
    attempt.resource = attempt.resource._replace(url=attempt.url.replace(hub.url, home))
    hub.then(Fault(end=0.5))
    assert attempt.run() == content
    first = next(asked for asked in hub.asked if asked.host == "hub")
    assert first.headers["Authorization"].startswith("Basic "), "it is for the site itself"
    for status in (401, 404, 400, 503):
        hub.refuses = status
        with Web(home, None) as web, pytest.raises((BrokenError, RbeeError)) as caught:
            web.read(home)
        assert "secret" not in str(caught.value)
        assert hub.url.removeprefix("http://") in str(caught.value)
    with (
        Web("http://bee:secret@127.0.0.1:9", None) as web,
        pytest.raises(BrokenError, match=r"^127\.0\.0\.1:9 cannot be"),
    ):
        web.read("http://bee:secret@127.0.0.1:9/")


def test_a_redirect_into_a_private_network_is_refused(hub: Hub, tmp_path: Path) -> None:
    attempt = Try(hub, tmp_path, private=False)
    with pytest.raises(DownloadFailedError, match="private network") as caught, attempt.web:
        attempt.start().run()
    assert "private_redirects" in str(caught.value.hint)
    assert {asked.host for asked in hub.asked} == {"hub"}, "the second host was never asked"
    assert attempt.retries == []


def test_a_name_that_means_a_private_address_is_refused_before_anything_is_asked(hub: Hub, tmp_path: Path) -> None:
    with Hub() as other:
        hub.redirect = other.url.replace("127.0.0.1", "localhost") + "{path}"
        attempt = Try(hub, tmp_path, private=False)
        with pytest.raises(DownloadFailedError, match="private network"), attempt.web:
            attempt.start().run()
        assert other.asked == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("ftp://127.0.0.2/{path}", "no web address"),
        ("file:///etc/passwd", "no web address"),
        ("http://[nonsense/{path}", "no web address"),
        ("http://127.0.0.2:99999/", "no web address"),
        ("{path}/resolve/loop", None),
    ],
)
def test_a_redirect_to_nowhere_is_refused_at_once(target: str, said: str | None, hub: Hub, tmp_path: Path) -> None:
    hub.redirect = target
    attempt = Try(hub, tmp_path)
    with pytest.raises((DownloadFailedError, ModelNotFoundError), match=said), attempt.web:
        attempt.start().run()
    assert attempt.retries == []


def test_an_encrypted_site_does_not_lead_to_a_plain_one() -> None:
    from urllib.parse import urlsplit

    with Web("https://hub.example", None) as web, pytest.raises(DownloadFailedError, match="without encryption"):
        web._check(urlsplit("http://cdn.example/file"))


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ModelAccessDeniedError), (403, ModelAccessDeniedError), (404, ModelNotFoundError)]
)
def test_what_no_attempt_mends_is_not_tried_again(status: int, kind: type[Exception], hub: Hub, tmp_path: Path) -> None:
    hub.refuses = status
    attempt = Try(hub, tmp_path)
    with pytest.raises(kind), attempt.web:
        attempt.start().run()
    assert len(hub.asked) == 1


def test_a_gated_model_says_so(hub: Hub, tmp_path: Path) -> None:
    hub.protect("bees/model", "hf_secret", is_gated=True)
    attempt = Try(hub, tmp_path)
    with pytest.raises(ModelAccessDeniedError, match="gated") as caught, attempt.web:
        attempt.start().run()
    assert "HF_TOKEN" in str(caught.value.hint)


def test_a_full_disk_says_what_is_missing_and_is_resumed(hub: Hub, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    disk.mount(folder, "size=4m")
    try:
        attempt = Try(hub, folder)
        with pytest.raises(InsufficientDiskError) as caught, attempt.web:
            attempt.start().run()
        assert caught.value.details["needed"] == 2, "what is still to come"
        assert caught.value.details["available"] == 0
        there = attempt.part.stat().st_size
        assert there > SIZE / 2
        disk.remount(folder, "size=16m")
        assert Try(hub, folder).run() == content
        assert hub.content()[-1].sent == SIZE - there
    finally:
        disk.unmount(folder)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_that_cannot_be_is_said(is_link: bool, hub: Hub, tmp_path: Path) -> None:
    """A link to a disk that is not mounted leads nowhere."""
    if is_link:
        (tmp_path / "here").symlink_to(tmp_path / "disk" / "models")
    else:
        (tmp_path / "here").write_text("a file")
    attempt = Try(hub, tmp_path)
    with pytest.raises(StorageError, match="is no folder, or a link to none") as caught, attempt.web:
        attempt.start().run()
    assert "models_dir" in str(caught.value.hint)


PROGRAM = """
import sys
from pathlib import Path
from rbee.adapters.download.fetch import Fetch, Resource
from rbee.adapters.download.web import Web
url, size, sha256, to = sys.argv[1:]
home = url[:url.index("/bees")]
with Web(home, None, may_be_private=True) as web:
    tell = lambda step: print(step.bytes_done if hasattr(step, "bytes_done") else step, flush=True)
    Fetch(web, Resource(url, int(size), sha256), Path(to), (0.1,), tell).run()
"""


@pytest.mark.parametrize("share", [0.03, 0.35, 0.8])
def test_killed_at_any_byte_it_goes_on_there(share: float, hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.fault = Fault(stall=share + 0.1)
    attempt = Try(hub, tmp_path)
    command = [sys.executable, "-c", PROGRAM, attempt.url, str(SIZE), str(attempt.resource.sha256), str(attempt.to)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not attempt.part.exists() or attempt.part.stat().st_size < SIZE * share:
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    there = attempt.part.stat().st_size
    assert there < SIZE
    hub.fault = Fault()
    assert attempt.run() == content
    assert hub.content()[-1].sent == SIZE - there, "the bytes kept and the bytes fetched are the file"
