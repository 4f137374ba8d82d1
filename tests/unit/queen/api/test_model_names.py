"""Which model a client means by the name that it sends."""

from __future__ import annotations

import pytest

from rbee.errors import ModelNotFoundError, NodeNotFoundError
from rbee.queen.api.models import KnownModel, Meant, Names, meant

QWEN = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"
QWEN_8 = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0"
SMOL = "hf:bees/SmolLM2/smollm2-135m.gguf"
OWN = "file:/models/My Bee.gguf"
BEE = "builtin:bee-stories"
KNOWN = [
    KnownModel(BEE, "bee-stories.Q8_0"),
    KnownModel(QWEN, "qwen2.5-0.5b-instruct-q4_k_m"),
    KnownModel(QWEN_8, "qwen2.5-0.5b-instruct-q8_0"),
    KnownModel(SMOL, "smollm2-135m"),
    KnownModel(OWN, "My Bee"),
]
ALIASES = {"gpt-4o": "qwen", "qwen": QWEN, "bee@home": BEE, "far": f"{SMOL}@attic", "a": "b", "b": "a"}
NAMES = Names(KNOWN, ALIASES, {"local", "attic"}, BEE)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("", BEE),
        ("  ", BEE),
        (BEE, BEE),
        ("bee-stories", BEE),
        ("Bee-Stories:latest", BEE),
        ("openai/bee-stories", BEE),
        (QWEN, QWEN),
        (QWEN.lower(), QWEN),
        ("qwen/qwen2.5-0.5b-instruct-gguf:q8_0", QWEN_8),
        ("hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0", QWEN_8),
        ("https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0", QWEN_8),
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", QWEN),
        ("qwen2.5-0.5b-instruct", QWEN),
        ("qwen2.5-0.5b-instruct:q8_0", QWEN_8),
        ("qwen2.5-0.5b-instruct-q8_0", QWEN_8),
        ("hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF", "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF"),
        ("gpt-4o", QWEN),
        ("GPT-4o", QWEN),
        ("ollama/gpt-4o", QWEN),
        ("bees/SmolLM2/smollm2-135m.gguf", SMOL),
        ("smollm2", SMOL),
        ("smollm2-135m", SMOL),
        ("my bee", OWN),
        ("My Bee.gguf", OWN),
        ("bee@home", BEE),
        # Not here, and can be fetched.
        ("hf:other/model", "hf:other/model"),
        ("hf.co/other/model", "hf:other/model"),
        ("other/model:Q4_K_M", "hf:other/model:Q4_K_M"),
        ("other/model:IQ2_XXS", "hf:other/model:IQ2_XXS"),
        ("other/model:UD-Q4_K_XL", "hf:other/model:UD-Q4_K_XL"),
        ("file:/else/where.gguf", "file:/else/where.gguf"),
        # Names of other servers' models.
        ("gpt-5", None),
        ("other/model", None),
        ("openai/gpt-oss:20b", None),
        ("claude-sonnet-4-5", None),
        ("a", None),
        ("hf:", None),
        ("../../etc/passwd", None),
        ("\x1b[2J", None),
        ("x" * 512, None),
    ],
)
def test_what_a_name_means(name: str, reference: str | None) -> None:
    if reference is not None:
        assert meant(name, NAMES) == Meant(reference)
        return
    with pytest.raises(ModelNotFoundError) as caught:
        meant(name, NAMES)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 200
    assert meant(name, NAMES._replace(unknown_is_default=True)) == Meant(BEE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bee-stories@attic", Meant(BEE, "attic")),
        ("@attic", Meant(BEE, "attic")),
        ("gpt-4o@local", Meant(QWEN, "local")),
        ("far", Meant(SMOL, "attic")),
        ("far@local", Meant(SMOL, "local")),
        ("hf.co/other/model@attic", Meant("hf:other/model", "attic")),
        ("file:/a@b/x.gguf", Meant("file:/a@b/x.gguf")),
        ("file:/x@y.gguf", Meant("file:/x@y.gguf")),
    ],
)
def test_a_name_may_say_which_node(name: str, expected: Meant) -> None:
    assert meant(name, NAMES) == expected


def test_a_node_that_there_is_not_is_named() -> None:
    with pytest.raises(NodeNotFoundError, match="nowhere"):
        meant("bee-stories@nowhere", NAMES._replace(unknown_is_default=True))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("bee-story", BEE), ("qwen2.5-0.5b-instuct", QWEN), ("smolm2", SMOL), ("gpt-4", "gpt-4o"), ("gpt4o", "gpt-4o")],
)
def test_who_has_mistyped_a_name_is_told_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        meant(name, NAMES)
    assert nearest in caught.value.details["nearest"]
    assert nearest in str(caught.value.hint)


def test_who_has_mistyped_a_name_is_told_of_no_model_and_alias_that_is_not_to_be_seen() -> None:
    names = NAMES._replace(may_see=lambda reference, alias: reference == SMOL or alias == "qwen")
    with pytest.raises(ModelNotFoundError) as caught:
        meant("bee-storys", names)
    assert caught.value.details["nearest"] == [SMOL, "qwen"]
    assert BEE not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["Q.Q8_0", "q.q8_0.gguf", "file:/else/Q.Q8_0.gguf"])
def test_a_file_that_is_in_no_list_and_runs_has_its_name(name: str) -> None:
    running = KnownModel("file:/else/Q.Q8_0.gguf", loaded=("local",))
    assert meant(name, NAMES._replace(known=[*KNOWN, running])).reference == running.reference
