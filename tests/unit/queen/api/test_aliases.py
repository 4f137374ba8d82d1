"""Which aliases there may be beside the models of a swarm, and what each leads to."""

from __future__ import annotations

import pytest

from rbee.errors import InvalidRequestError, ModelNotFoundError, NodeNotFoundError, RbeeError
from rbee.queen.api.aliases import check, described
from rbee.queen.api.models import KnownModel, Names, meant
from rbee.wire.administration import alias_names
from rbee.wire.administration.aliases import AliasRequest
from rbee.wire.model_ref import BUILTIN

QWEN = "hf:o/Qwen-GGUF:Q4_K_M"
NAMES = Names(
    known=[KnownModel(BUILTIN, "bee-stories", ("local",)), KnownModel(QWEN, "qwen-q4", ("attic",))],
    aliases={"coder": QWEN, "mine": "coder"},
    nodes={"local", "attic"},
    default=BUILTIN,
    unknown_is_default=True,
)


def asked(name: str, target: str) -> AliasRequest:
    return AliasRequest(name=name, target=target)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt-4o", QWEN),
        ("gpt-4o", "qwen"),
        ("gpt-4o", "hf:new/model:Q8_0"),
        ("gpt-4o", "file:/x.gguf"),
        ("gpt-4o", "mine"),
        ("gpt-4o", "coder@attic"),
        ("coder", "bee-stories"),
        ("CODER", "bee-stories"),
    ],
)
def test_an_alias_may_stand_for_whatever_names_a_model(name: str, target: str) -> None:
    check(asked(name, target), NAMES)


@pytest.mark.parametrize(
    ("name", "target", "error", "said"),
    [
        ("a b", QWEN, InvalidRequestError, "no model can be called"),
        ("hf:o/r", QWEN, InvalidRequestError, "looks like a reference"),
        ("bee-stories", QWEN, InvalidRequestError, f"is a name of {BUILTIN} already"),
        ("Qwen-GGUF", BUILTIN, InvalidRequestError, f"is a name of {QWEN} already"),
        ("qwen-q4", BUILTIN, InvalidRequestError, f"is a name of {QWEN} already"),
        ("o/other:Q8_0", QWEN, InvalidRequestError, "is a name of hf:o/other:Q8_0 already"),
        ("x", "x", InvalidRequestError, "x → x"),
        ("coder", "mine", InvalidRequestError, "coder → mine → coder"),
        ("x", "nothing", ModelNotFoundError, "no model has this name: nothing"),
        ("x", "coder@nowhere", NodeNotFoundError, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(name: str, target: str, error: type[RbeeError], said: str) -> None:
    with pytest.raises(error) as found:
        check(asked(name, target), NAMES)
    assert said in found.value.message
    assert found.value.hint
    assert " x" not in (found.value.hint or ""), "the alias that is to be is not suggested"


def test_what_each_leads_to_is_said_and_why_one_leads_nowhere() -> None:
    aliases = {"b": "mine@attic", "a": "nothing", "qwen": BUILTIN, **NAMES.aliases}
    found = {one.name: one for one in described(NAMES._replace(aliases=aliases), {"a"})}
    assert list(found) == ["a", "b", "coder", "mine", "qwen"]
    assert (found["b"].model, found["b"].node, found["b"].source) == (QWEN, "attic", "command")
    assert (found["a"].model, found["a"].source, found["a"].problem) == (
        None,
        "settings",
        "no model has this name: nothing",
    )
    assert found["qwen"].problem == f"it hides {QWEN}, whose name this is too"
    assert found["coder"].problem is None


def test_the_longest_chain_is_followed() -> None:
    aliases = {f"a{number}": f"a{number + 1}" for number in range(alias_names.MAX_IN_A_ROW - 1)}
    last = f"a{alias_names.MAX_IN_A_ROW - 1}"
    assert meant("a0", NAMES._replace(aliases={**aliases, last: QWEN})).reference == QWEN
