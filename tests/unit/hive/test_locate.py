"""Finding the file of a model reference."""

from __future__ import annotations

import pytest

from rbee.errors import ModelNotFoundError
from rbee.hive.catalogue import locate
from rbee.wire import model_ref


@pytest.mark.parametrize("reference", ["file:/nowhere/m.gguf", f"file:/{'x' * 300}.gguf", "hf:bees/honey"])
def test_a_model_that_is_not_here_is_an_error(reference: str) -> None:
    with pytest.raises(ModelNotFoundError):
        locate.locate(model_ref.parse(reference))


def test_the_bundled_model_is_always_here() -> None:
    assert locate.locate(model_ref.parse(model_ref.BUILTIN)).is_file()
