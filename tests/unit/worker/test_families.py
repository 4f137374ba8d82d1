"""Models without a chat template get that of their family."""

from __future__ import annotations

import pytest

from rbee.worker.chat.families import FAMILIES, PLAIN, Family, family_of
from tests.kit.histories import CALL, WEATHER, Loaded, assistant, result, system, talk, user


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_model_is_of_the_family_whose_tokens_it_has(family: Family) -> None:
    assert family_of({*family.tokens, "<s>"}) is family
    assert family_of(set(family.tokens[:-1])) is PLAIN


@pytest.mark.parametrize("family", [*FAMILIES, PLAIN], ids=lambda family: family.name)
def test_a_family_writes_whole_histories(family: Family) -> None:
    loaded = Loaded(family.template)
    text = loaded.text(
        talk(system("Be kind."), user("one"), assistant("two", CALL), result("three"), user("four"), tools=[WEATHER])
    )
    places = [text.rindex(word) for word in ("Be kind.", "one", "two", '"Berlin"', "three", "four")]
    assert places == sorted(places)
    assert all(token in text for token in family.tokens if token not in ("<|system|>", "<|assistant|>"))


def test_the_plain_one_names_who_speaks() -> None:
    text = Loaded(PLAIN.template).text(talk(system("Be kind."), user("Who?"), assistant("I."), user("And?")))
    assert text == "System: Be kind.\n\nUser: Who?\n\nAssistant: I.\n\nUser: And?\n\nAssistant:"
