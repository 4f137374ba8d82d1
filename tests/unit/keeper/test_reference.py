from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from rbee.adapters.config import Settings
from rbee.errors import InvalidRequestError
from rbee.keeper.command_line import reference
from rbee.wire import model_ref
from rbee.wire.model_ref import FORMS, ModelRef

if TYPE_CHECKING:
    from pathlib import Path

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"


def hint(text: str) -> list[str]:
    with pytest.raises(InvalidRequestError) as refused:
        reference.parse(text)
    assert refused.value.hint is not None
    *meant, forms = refused.value.hint.splitlines()
    assert forms == "accepted forms: " + ", ".join(FORMS)
    return meant


def test_a_word_may_be_a_name_where_a_queen_has_run(tmp_path: Path) -> None:
    settings = Settings()
    settings.paths.state_dir = settings.paths.models_dir = str(tmp_path)
    names = {"llama": True, "SmolLM2-135M-Instruct@attic": True, "qwen3:8b": True, REPO: False, "hf:bees": False}
    names |= {"./llama": False, "a.gguf": False, "hf:a/b": False, "": False, "a b": False}
    assert not any(reference.is_name(name, settings) for name in names), "only the bundled model can be there"
    assert reference.is_name("bee-stories", settings)
    (tmp_path / "beehives.db").touch()
    assert {name: reference.is_name(name, settings) for name in names} == names
    (tmp_path / "hf" / REPO).mkdir(parents=True)
    (tmp_path / "hf" / REPO / "tiny.Q4_K_M.gguf").touch()
    assert reference.is_name(f"{REPO.lower()}:Q4_K_M", settings)
    assert not reference.is_name("TheBloke/Other", settings), "a repository of the hub, which is suggested"


@pytest.mark.parametrize("text", FORMS)
def test_a_reference_is_parsed(text: str) -> None:
    assert str(reference.parse(text)) == text


@pytest.mark.parametrize("text", ["llama", "file:nowhere.gguf", "hf:bees", "https://example.org/o/r", ""])
def test_nothing_is_suggested_for_what_is_unlike_a_reference(text: str) -> None:
    assert hint(text) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (REPO, f"hf:{REPO}"),
        (f"{REPO}:Q4_K_M", f"hf:{REPO}:Q4_K_M"),
        (f"hf.co/{REPO}:Q4_K_M", f"hf:{REPO}:Q4_K_M"),
        (f"https://huggingface.co/{REPO}", f"hf:{REPO}"),
        (f"https://huggingface.co/{REPO}/blob/main/tiny.Q8_0.gguf", f"hf:{REPO}/tiny.Q8_0.gguf"),
        (f"https://huggingface.co/{REPO}/resolve/main/tiny.Q8_0.gguf?download=true", f"hf:{REPO}/tiny.Q8_0.gguf"),
        (f"https://huggingface.co/{REPO}/blob/main/a%20b%281%29.gguf", f"'hf:{REPO}/a b(1).gguf'"),
    ],
)
def test_names_and_addresses_of_the_hub_suggest_the_reference(text: str, meant: str) -> None:
    assert hint(text) == [f"did you mean {meant}?"]


NAMES = [
    "bee.gguf",
    "Bee.GGUF",
    "my bee.gguf",
    "bee (1).gguf",
    "a+b,c@d=e~f%20g.gguf",
    "bée-蜂-🐝.gguf",
    'it\'s "quoted" $HOME `x` & more; #1!.gguf',
    "a:b.gguf",
    "-bee.gguf",
    "a..b.gguf",
    " bee .gguf",
    "back\\slash*?.gguf",
    ".hidden.gguf",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "my models (2)" / "+é"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"GGUF")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = ModelRef("file", str(folder / name))
    for text in (
        f"{folder}/{name}",
        f"file:{folder}/{name}",
        f"./+é/{name}",
        f"+é/{name}",
        f"../my models (2)/+é/{name}",
        f"~/my models (2)/+é/{name}",
        f"file:~/my models (2)/+é/{name}",
        f"file:+é/{name}",
        f"file:{quote(f'{folder}/{name}')}",
        f"file://{quote(f'{folder}/{name}')}",
        f"file://localhost{quote(f'{folder}/{name}')}",
    ):
        assert reference.parse(text) == expected, text
    monkeypatch.chdir(folder)
    assert reference.parse(name) == expected
    assert model_ref.parse(str(expected)) == expected
    assert shlex.split(model_ref.quoted(expected)) == [str(expected)]


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "bee.gguf").write_bytes(b"GGUF")
    (tmp_path / "latest.gguf").symlink_to("bee.gguf")
    assert str(reference.parse(f"{tmp_path}/latest.gguf")) == f"file:{tmp_path}/latest.gguf"


@pytest.mark.parametrize("text", ["/nowhere/bee.gguf", "file:/nowhere/my bee.gguf"])
def test_an_absolute_path_may_be_another_nodes(text: str) -> None:
    assert str(reference.parse(text)) == f"file:{text.removeprefix('file:')}"


@pytest.mark.parametrize("text", ["my models/x.gguf", "models/x.gguf", "~/m/x.gguf", "a (1)/é.GGUF", "file:a/b.gguf"])
def test_a_path_of_nothing_is_a_path_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    full = f"{tmp_path}/{text.removeprefix('~/').removeprefix('file:')}"
    with pytest.raises(InvalidRequestError) as refused:
        reference.parse(text)
    assert f"there is no file {full} on this machine" in refused.value.message
    assert hint(text) == []


def test_a_file_of_the_hub_without_its_prefix_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint(f"{REPO}/tiny (1).gguf") == [f"did you mean 'hf:{REPO}/tiny (1).gguf'?"]


@pytest.mark.parametrize("text", ["bees.gguf", "./bees.gguf", "file:bees.gguf", "~/bees.gguf", "file:../x/bees.gguf"])
def test_a_path_that_is_not_there_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "bee 1.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    with pytest.raises(InvalidRequestError, match=f"there is no file {folder}/bees.gguf on this machine"):
        reference.parse(text)
    assert hint(text) == [f"did you mean '{folder}/bee 1.gguf'?"]


@pytest.mark.parametrize("text", [".", "./", "file:.", "{}", "{}/", "file:{}"])
def test_a_folder_is_no_model_and_its_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint(text.format(tmp_path)) == []
    (tmp_path / "my bee.gguf").write_bytes(b"GGUF")
    assert hint(text.format(tmp_path)) == [f"did you mean '{tmp_path}/my bee.gguf'?"]
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert hint(text.format(tmp_path)) == [f"did you mean {tmp_path}/a.gguf or '{tmp_path}/my bee.gguf'?"]


def test_what_is_there_and_no_file_is_never_suggested_in_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latest.gguf").symlink_to("v2.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    for text, said in (
        ("latest.gguf", f"{tmp_path}/latest.gguf is a link to v2.gguf, where nothing is"),
        ("./pipe.gguf", f"{tmp_path}/pipe.gguf is a pipe, a socket or a device, and no file"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            reference.parse(text)
        assert hint(text) == []
    # Another node may have a file at the path of a link that leads nowhere here.
    assert str(reference.parse(f"{tmp_path}/latest.gguf")) == f"file:{tmp_path}/latest.gguf"


def test_only_files_that_can_be_named_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "latest.gguf").symlink_to("v2.gguf")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "two\nlines.gguf").write_bytes(b"GGUF")
    (tmp_path / os.fsdecode(b"b\xe9e.gguf")).write_bytes(b"GGUF")
    assert hint(str(tmp_path)) == []
    (tmp_path / "bee.gguf").write_bytes(b"GGUF")
    assert hint(str(tmp_path)) == [f"did you mean {tmp_path}/bee.gguf?"]


def test_a_file_of_another_type_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bee.bin").write_bytes(b"bee")
    assert hint(f"{tmp_path}/bee.bin") == ["models are GGUF files, whose names end in .gguf"]
    (tmp_path / "sha256-0 1").write_bytes(b"GGUF")
    (meant,) = hint(f"{tmp_path}/sha256-0 1")
    assert meant.endswith(f"and this is one: `ln -s '{tmp_path}/sha256-0 1' ./model.gguf` gives it such a name")


def test_a_name_that_is_no_utf8_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"b\xe9e.gguf")).write_bytes(b"GGUF")
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        reference.parse(f"{tmp_path}/{os.fsdecode(b'b' + bytes([0xE9]) + b'e.gguf')}")


@pytest.mark.parametrize(
    "text",
    [
        "bee-stories", "bee-storys", "Bee-Stories", "beestories", "bee_stories", "stories", "bee",
        "builtin:beestories", "builtin:bee_stories", "builtin/bee-stories", "builtin", "bee-sto",
    ],
)  # fmt: skip
def test_a_word_that_is_near_the_bundled_models_name_suggests_it(text: str) -> None:
    assert hint(text) == (["did you mean builtin:bee-stories?"] if text != "builtin" else [])


@pytest.mark.parametrize("text", ["tinyllama", "TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q4_K_M"])
def test_a_word_that_is_near_a_fetched_models_name_suggests_it(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "hf" / REPO
    folder.mkdir(parents=True)
    (folder / "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidRequestError) as refused:
        reference.parse(text, tmp_path)
    meant = f"did you mean hf:{REPO}/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf?"
    assert (refused.value.hint or "").splitlines()[0] == meant


def test_an_id_is_known_by_the_files_of_this_machine_and_unknown_of_another(tmp_path: Path) -> None:
    (tmp_path / "hf" / "o" / "r").mkdir(parents=True)
    (tmp_path / "hf" / "o" / "r" / "my bee.gguf").write_bytes(b"GGUF")
    folders = (tmp_path, tmp_path / "nowhere")
    assert reference.parse_or_id("my bee", folders) == "my bee"
    assert reference.parse_or_id("my bee-0123abcd", folders) == "my bee-0123abcd"
    assert reference.parse_or_id("smollm", None) == "smollm"
    assert reference.parse_or_id("hf:o/r", folders) == "hf:o/r"
    for text in ("smollm", "my", "o/r", "./smollm"):
        with pytest.raises(InvalidRequestError):
            reference.parse_or_id(text, folders)
