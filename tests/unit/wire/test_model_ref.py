"""The forms in which a user names a model."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rbee.errors import InvalidRequestError
from rbee.wire.model_ref import BUILTIN, FORMS, MAX_LENGTH, ModelRef, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:ORG/REPO", ModelRef("hf", "ORG/REPO")),
        ("hf:ORG/REPO:Q5_K_M", ModelRef("hf", "ORG/REPO", "Q5_K_M")),
        ("hf:ORG/REPO/FILE.gguf", ModelRef("hf", "ORG/REPO", "FILE.gguf")),
        ("hf:ORG/REPO/folder/FILE-00001-of-00002.gguf", ModelRef("hf", "ORG/REPO", "folder/FILE-00001-of-00002.gguf")),
        (
            "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
            ModelRef("hf", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"),
        ),
        ("file:/models/a.gguf", ModelRef("file", "/models/a.gguf")),
        ("file:/models/A.GGUF", ModelRef("file", "/models/A.GGUF")),
        ("hf:ORG/REPO/FILE.GGUF", ModelRef("hf", "ORG/REPO", "FILE.GGUF")),
        ("file:/a:b.gguf", ModelRef("file", "/a:b.gguf")),
        (BUILTIN, ModelRef("builtin", "bee-stories")),
        ("file:/my models/a (1).gguf", ModelRef("file", "/my models/a (1).gguf")),
        ("file:/é/蜂/🐝%20+,@=~#?&;'.gguf", ModelRef("file", "/é/蜂/🐝%20+,@=~#?&;'.gguf")),
        ("file:/a..b/c..gguf", ModelRef("file", "/a..b/c..gguf")),
        ("hf:O/R/my model (1)+é.gguf", ModelRef("hf", "O/R", "my model (1)+é.gguf")),
        ("hf:O/R/q 4/a,b@c=d~e%f.gguf", ModelRef("hf", "O/R", "q 4/a,b@c=d~e%f.gguf")),
        ("hf:O/R/a:b..c.gguf", ModelRef("hf", "O/R", "a:b..c.gguf")),
        ("hf:O/R:UD-Q4_K_XL (new)", ModelRef("hf", "O/R", "UD-Q4_K_XL (new)")),
    ],
)
def test_an_accepted_form(text: str, expected: ModelRef) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["file:/models//a.gguf", "file:/models/./a.gguf", "file:///models/a.gguf"])
def test_a_path_has_one_canonical_form(text: str) -> None:
    assert str(parse(text)) == "file:/models/a.gguf"


def test_two_leading_slashes_are_one_path() -> None:
    assert str(parse("file://models/a.gguf")) == "file:/models/a.gguf"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "llama",
        "TinyLlama-1.1B",
        "hf:",
        "hf:repo",
        "hf:/repo",
        "hf:org/",
        "hf:org/repo/",
        "hf:org/repo/file.bin",
        "hf:org/repo/file.gguf:Q4_K_M",
        "hf:org/repo:",
        "hf:org/repo:a/b",
        "hf:org/repo:a:b",
        "hf:org/repo//file.gguf",
        "hf:org/repo/./file.gguf",
        "hf:./repo",
        "hf:org/.",
        "hf:../repo",
        "hf:org/..",
        "hf:org/repo/../x.gguf",
        "HF:org/repo",
        "file:",
        "file:a.gguf",
        "file:/a.bin",
        "file:/a/../b.gguf",
        "file:~/a.gguf",
        "builtin:",
        "builtin:other",
        "builtin:bee-stories:Q8_0",
        "ftp:org/repo",
        ":org/repo",
        "hf:org/re po",
        "hf:org/repo\n",
        "hf:org/repo\x00",
        "hf:org/répo",
        "hf:org/repo?x=1",
        "hf:org/repo%2e%2e",
        "hf:org/\x1b[31m",
        "hf:org/a..b",
        "hf:org/repo/.hidden.gguf",
        "hf:org/repo/a/.b/c.gguf",
        "hf:org/repo/a\n.gguf",
        "hf:org/repo/a\x85.gguf",
        "hf:org/repo/a\u2028.gguf",
        "hf:org/repo/\udc80.gguf",
        "hf:org/repo/..",
        "hf:org/repo/...gguf/../x.gguf",
        "file:/a\x1b[2J.gguf",
        "file:/a/..",
        "hf:org/" + "r" * MAX_LENGTH,
    ],
)
def test_everything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(text)
    error = caught.value
    assert error.details["field"] == "model"
    assert error.details["expected"] == list(FORMS)
    assert error.hint is not None
    for form in FORMS:
        assert form in error.hint
    for word in text.split():
        assert len(word) < 4 or word not in error.message


def test_a_bare_word_is_told_apart() -> None:
    with pytest.raises(InvalidRequestError, match="bare word"):
        parse("llama")


def test_the_longest_reference_is_accepted() -> None:
    text = "hf:o/" + "r" * (MAX_LENGTH - 5)
    assert str(parse(text)) == text


@given(st.text(alphabet="abhfiletuQ4_./:-\n é", max_size=30) | st.text(max_size=30))
def test_any_text_is_refused_or_has_a_stable_canonical_form(text: str) -> None:
    try:
        ref = parse(text)
    except InvalidRequestError:
        return
    assert parse(str(ref)) == ref
    assert str(parse(str(ref))) == str(ref)


WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(org=WORDS, repo=WORDS, variant=st.none() | WORDS)
def test_every_repository_round_trips(org: str, repo: str, variant: str | None) -> None:
    assume(".." not in f"{org}/{repo}:{variant}")
    text = f"hf:{org}/{repo}" + (f":{variant}" if variant else "")
    assert parse(text)[:2] == ("hf", f"{org}/{repo}")
    assert parse(text).variant == variant
