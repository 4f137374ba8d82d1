"""Which names models may have beside their own, and where chains of them lead."""

from __future__ import annotations

import pytest

from rbee.errors import InvalidRequestError
from rbee.wire.administration.alias_names import MAX_IN_A_ROW, check_chain, check_name, is_name, named


@pytest.mark.parametrize("name", ["gpt-4o", "a", "openai/gpt-4o", "llama3.2:1b", "text_1+2", "a" * 200])
def test_a_model_can_be_called_so(name: str) -> None:
    check_name(name)
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a b", "a@b", "-x", "./x", "~/x", "/x", "a\n", "a\x1b[2J", "ä", "a" * 201, "..", "@", "$(x)"),
        *("hf:o/r", "HF:o/r", "file:/x", "builtin:x", "https://x", "x.gguf", "x.GGUF"),
    ],
)
def test_no_model_can_be_called_so(name: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        check_name(name)
    assert error.value.hint
    assert error.value.message.isprintable()
    assert not is_name(name)


@pytest.mark.parametrize("name", ["GPT-4O", "gpt-4o:latest", "Gpt-4o:Latest"])
def test_letters_are_small_or_capital_and_the_latest_is_any(name: str) -> None:
    assert named(name, {"gpt-4o": "x"}) == "gpt-4o"
    assert named("gpt-4o", {name: "x"}) == name
    assert named("gpt-4", {name: "x"}) is None


def test_a_chain_that_leads_back_is_shown() -> None:
    aliases = {"a": "B@attic", "b": "c", "c": "a", "d": "hf:o/r", "e": "e"}
    with pytest.raises(InvalidRequestError, match="a → b → c → a"):
        check_chain("a", aliases)
    with pytest.raises(InvalidRequestError, match="e → e"):
        check_chain("e", aliases)
    check_chain("d", aliases)


def test_a_chain_has_an_end() -> None:
    aliases = {f"a{number}": f"a{number + 1}" for number in range(MAX_IN_A_ROW)}
    check_chain("a1", aliases)
    with pytest.raises(InvalidRequestError, match=f"at most {MAX_IN_A_ROW} aliases"):
        check_chain("a0", aliases | {f"a{MAX_IN_A_ROW}": "hf:o/r"})
