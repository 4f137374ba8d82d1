"""What holds a generation to a grammar, with a real model's vocabulary."""

from __future__ import annotations

import ctypes
import json
import re
from contextlib import closing
from math import isfinite
from typing import TYPE_CHECKING

import pytest

from rbee.errors import InvalidRequestError
from rbee.worker.llama import constraint, header
from rbee.worker.llama.model import Model
from tests.kit.models import byte, make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rbee.worker.engine.backend import Constraint


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    path = make(tmp_path / "m.gguf")
    with closing(Model(path, header.read(path))) as model:
        yield model


def allowed(model: Model, held: Constraint) -> set[int]:
    """Return the tokens that may come next."""
    row = (ctypes.c_float * model.tokens)()
    held.apply(row)
    return {token for token in range(model.tokens) if isfinite(row[token])}


def test_each_generation_under_a_grammar_begins_at_its_beginning(model: Model) -> None:
    grammar = 'start: "ab" | "cd"'
    first = model.constrained(grammar)
    start = allowed(model, first)
    assert start == {byte(ord("a")), byte(ord("c"))}
    first.accept(byte(ord("a")))
    again = model.constrained(grammar)
    assert allowed(model, first) == {byte(ord("b"))}
    assert allowed(model, again) == start
    again.accept(byte(ord("c")))
    assert allowed(model, first) == {byte(ord("b"))}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strange"}, "#"),
        ({"properties": {"a/b": {"items": {"type": "strange"}}, "c": {"type": "string"}}}, "#/properties/a~1b/items"),
        ({"anyOf": [{"type": "null"}, {"type": "strange"}]}, "#/anyOf/1"),
        ({"properties": {"a": {"$ref": "#/$defs/it"}}, "$defs": {"it": {"type": "strange"}}}, "#/properties/a"),
    ],
)
def test_the_place_in_a_schema_that_cannot_be_compiled_is_named(model: Model, schema: object, place: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"kept to: Invalid type: strange, at {re.escape(place)} in"):
        model.constrained(f"start: rule_0\nrule_0: %json {json.dumps(schema)}")


def test_where_the_text_may_end_each_token_that_ends_one_is_allowed(model: Model) -> None:
    held = model.constrained('start: "a"')
    held.accept(byte(ord("a")))
    assert allowed(model, held) == set(model.end_tokens())


def test_many_grammars_are_compiled_and_the_first_ones_anew(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "MAX_COMPILED", 2)
    for _ in range(2):
        for letter in "abcd":
            assert allowed(model, model.constrained(f'start: "{letter}x"')) == {byte(ord(letter))}


def test_what_is_no_grammar_is_refused_each_time(model: Model) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="cannot be kept to"):
            model.constrained("start: nowhere")


@pytest.mark.parametrize("pattern", ["a{100000}", "(a{1000}){100}"])
def test_what_would_take_the_engine_long_for_each_token_is_refused(model: Model, pattern: str) -> None:
    with pytest.raises(InvalidRequestError, match="too complex"):
        model.constrained(f"start: /{pattern}/")
    allowed(model, model.constrained("start: /(a{1,100}b?){1,20}/"))


def test_a_long_list_of_texts_is_not_too_complex(model: Model) -> None:
    texts = json.dumps({"enum": [f"value number {number}" for number in range(3000)]})
    held = model.constrained(f"start: text\ntext: %json {texts}")
    assert allowed(model, held) == {byte(ord('"'))}
