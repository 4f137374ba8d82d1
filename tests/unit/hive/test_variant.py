"""Which files of a repository are the model that was asked for."""

from __future__ import annotations

import shlex
from unicodedata import normalize

import pytest

from rbee.errors import InvalidRequestError, ModelNotFoundError
from rbee.hive.catalogue.variant import ChosenModel, choose
from rbee.narrower_errors import UnsupportedModelError
from rbee.wire import model_kind, model_ref
from rbee.wire.hub import HubFile

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
STEM = "tinyllama-1.1b-chat-v1.0"


def files(*names: str) -> list[HubFile]:
    return [HubFile(name, 1_000_000 * (number + 1), None) for number, name in enumerate(names)]


def chosen(reference: str, *names: str) -> ChosenModel:
    return choose(model_ref.parse(f"hf:{reference}"), files(*names))


def names(choice: ChosenModel) -> list[str]:
    return [file.name for file in choice.files]


QUANTISED = [f"{STEM}.{kind}.gguf" for kind in ("Q2_K", "Q3_K_S", "Q4_0", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0")]


def test_the_default_is_q4_k_m() -> None:
    found = chosen(REPO, "README.md", *QUANTISED)
    assert names(found) == [f"{STEM}.Q4_K_M.gguf"]
    assert found.variant == "Q4_K_M"
    assert found.size == 5_000_000


@pytest.mark.parametrize("variant", ["Q5_K_M", "q5_k_m", "Q2_K", "Q4_0"])
def test_a_variant_is_a_word_of_its_own_in_any_case(variant: str) -> None:
    assert names(chosen(f"{REPO}:{variant}", *QUANTISED)) == [f"{STEM}.{variant.upper()}.gguf"]


def test_a_part_of_a_variants_name_is_none() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        chosen(f"{REPO}:Q4_K", *QUANTISED)
    assert f"hf:{REPO}/{STEM}.Q4_K_M.gguf (4 MB)" in str(caught.value.hint)


def test_the_only_one_needs_no_name() -> None:
    assert names(chosen("a/b", "README.md", "some-F16.gguf")) == ["some-F16.gguf"]


def test_the_only_one_in_a_folder_is_known_by_a_name_that_a_reference_takes() -> None:
    found = chosen("a/b", "gguf/some-F16.gguf")
    again = model_ref.parse("hf:a/b")._replace(variant=found.variant)
    assert model_ref.parse(str(again)) == again
    assert choose(again, files("gguf/some-F16.gguf")) == found


def test_several_without_the_default_are_listed() -> None:
    with pytest.raises(InvalidRequestError, match="ambiguous") as caught:
        chosen("a/b", "x-Q5_K_M.gguf", "x-Q8_0.gguf")
    assert caught.value.details["candidates"] == ["x-Q5_K_M", "x-Q8_0"]
    assert "hf:a/b/x-Q5_K_M.gguf" in str(caught.value.hint)


def test_two_of_the_default_are_ambiguous_too() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chosen("a/b", "x-Q4_K_M.gguf", "y-Q4_K_M.gguf", "x-Q8_0.gguf")
    assert caught.value.details["candidates"] == ["x-Q4_K_M", "y-Q4_K_M"]


def test_a_file_is_taken_by_its_name_in_folders_too() -> None:
    assert names(chosen("a/b/Q8_0/x.gguf", "Q8_0/x.gguf", "x.gguf")) == ["Q8_0/x.gguf"]


def test_a_file_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        chosen("a/b/z.gguf", "x.gguf")
    assert caught.value.details["available"] == ["x"]


def test_a_repository_without_a_model_is_an_error() -> None:
    with pytest.raises(ModelNotFoundError, match="no GGUF"):
        chosen("a/b", "model.safetensors", "mmproj-x-f16.gguf", "x.imatrix.gguf", "sub/imatrix.gguf")


PARTS = [f"big-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.mark.parametrize("reference", ["a/b", "a/b:Q4_K_M", f"a/b/{PARTS[0]}", f"a/b/{PARTS[1]}"])
def test_a_split_model_is_all_its_parts_in_order(reference: str) -> None:
    assert names(chosen(reference, PARTS[2], PARTS[0], PARTS[1], "big-Q8_0.gguf")) == PARTS


def test_a_split_model_with_a_part_missing_is_none() -> None:
    with pytest.raises(ModelNotFoundError):
        chosen("a/b", PARTS[0], PARTS[2])


@pytest.mark.parametrize(
    "name", ["../x.gguf", "/etc/x.gguf", ".hidden.gguf", "a/../../x.gguf", "x\n.gguf", "x\x00.gguf"]
)
def test_a_name_that_leaves_the_folder_is_no_file(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        choose(model_ref.parse("hf:a/b"), files(name))


ODD_NAMES = [
    "a+b Q5_K_M.gguf",
    "x (1).gguf",
    "a,b@c=d~e%20f.gguf",
    "é-蜂-🐝.gguf",
    "it's [best] {v2} #1; $x & `y`!.gguf",
    "a:b.gguf",
    "v1..2.gguf",
    "q 4/deep er/x.gguf",
    "-x.gguf",
    " x.gguf",
    "back\\slash*?.GGUF",
    "\N{ZERO WIDTH JOINER}x\N{NO-BREAK SPACE}.gguf",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_stays_in_its_folder_is_a_models_name(name: str) -> None:
    only = choose(model_ref.parse("hf:a/b"), files("README.md", name))
    assert names(only) == [name]
    again = model_ref.parse(str(model_ref.parse("hf:a/b")._replace(variant=only.variant)))
    assert names(choose(again, files(name, "other-Q8_0.gguf"))) == [name], "the chosen variant names it for good"
    assert names(choose(model_ref.parse(f"hf:a/b/{name}"), files(name, "other-Q4_K_M.gguf"))) == [name]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_hints_hold_names_as_a_shell_takes_them(name: str) -> None:
    with pytest.raises(InvalidRequestError) as ambiguous:
        choose(model_ref.parse("hf:a/b"), files(name, "other-Q8_0.gguf"))
    with pytest.raises(ModelNotFoundError) as missing:
        choose(model_ref.parse("hf:a/b:Q2_K"), files(name))
    for error in (ambiguous.value, missing.value):
        assert f"{shlex.quote(f'hf:a/b/{name}')} (1 MB)" in str(error.hint)


def test_an_accent_may_be_written_either_way() -> None:
    decomposed, composed = (normalize(form, "Modèle.gguf") for form in ("NFD", "NFC"))
    assert decomposed != composed
    assert names(choose(model_ref.parse(f"hf:a/b/{composed}"), files(decomposed))) == [decomposed]
    assert names(choose(model_ref.parse(f"hf:a/b/{composed}"), files(decomposed, composed))) == [composed]


def test_a_name_may_be_written_as_it_stands_in_an_address() -> None:
    assert names(choose(model_ref.parse("hf:a/b/my%20model%20%281%29.gguf"), files("my model (1).gguf", "x.gguf"))) == [
        "my model (1).gguf"
    ]
    assert names(choose(model_ref.parse("hf:a/b/a%20b.gguf"), files("a b.gguf", "a%20b.gguf"))) == ["a%20b.gguf"]


def test_the_parts_of_a_model_with_such_a_name_belong_together() -> None:
    parts = [f"my model (1)+é-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert names(choose(model_ref.parse("hf:a/b"), files(*parts))) == parts


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mmproj-model-f16.gguf", "projector"),
        ("x.mmproj.gguf", "projector"),
        ("MMPROJ.GGUF", "projector"),
        ("vision/x-mmproj_Q8.gguf", "projector"),
        ("x.imatrix.gguf", "calibration"),
        ("imatrix.gguf", "calibration"),
    ],
)
def test_a_file_that_comes_with_a_model_is_named_as_what_it_is(name: str, kind: str) -> None:
    what, use = model_kind.KINDS[kind]
    for beside in ((), ("x-Q4_K_M.gguf",)):
        with pytest.raises(UnsupportedModelError) as caught:
            choose(model_ref.parse(f"hf:a/b/{name}"), files(name, *beside))
        assert name in caught.value.message
        assert what in caught.value.message
        assert caught.value.hint == use
    with pytest.raises(ModelNotFoundError, match="holds no GGUF file that is a whole model") as nothing:
        chosen("a/b", name)
    assert what in nothing.value.message
    assert names(chosen("a/b", name, "x-Q8_0.gguf")) == ["x-Q8_0.gguf"]


def test_why_no_file_is_a_model_is_said() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        chosen("a/b", PARTS[0], ".hidden.gguf", "x\n.gguf", "y.mmproj.gguf")
    for words in (
        f"of the split model of {PARTS[0]!r} other files are missing",
        "'.hidden.gguf' has a name",
        "'x\\n.gguf'",
    ):
        assert words in caught.value.message
