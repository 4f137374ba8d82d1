from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rbee.errors import InvalidRequestError
from rbee.keeper.command_line import reference
from rbee.wire.model_ref import FORMS

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
    ],
)
def test_names_and_addresses_of_the_hub_suggest_the_reference(text: str, meant: str) -> None:
    assert hint(text) == [f"did you mean {meant}?"]


@pytest.mark.parametrize("text", ["bee.gguf", "./bee.gguf", "file:bee.gguf", "file:./bee.gguf", "~/bee.gguf"])
def test_the_path_of_a_file_suggests_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "bee.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hint(text) == [f"did you mean file:{tmp_path}/bee.gguf?"]


def test_a_file_whose_name_does_not_fit_a_reference_needs_another(tmp_path: Path) -> None:
    (tmp_path / "my bee.gguf").write_bytes(b"GGUF")
    (meant,) = hint(f"file:{tmp_path}/my bee.gguf")
    assert meant.endswith(f": ln -s '{tmp_path}/my bee.gguf' /tmp/model.gguf")


def test_a_file_of_another_type_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "bee.bin").write_bytes(b"GGUF")
    assert hint(f"{tmp_path}/bee.bin") == ["models are GGUF files, whose names end in .gguf"]
