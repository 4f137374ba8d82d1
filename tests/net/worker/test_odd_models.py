"""Models whose tokenizer or weights are unlike others, on the real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import odd_models as odd
from tests.kit.worker_child import events
from tests.kit.worker_serving import serving

if TYPE_CHECKING:
    from pathlib import Path

SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "as users ask": {"temperature": 0.7},
    "hot": {"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0},
    "seeded": {"temperature": 1, "seed": 7},
    "with a penalty": {"temperature": 0, "repeat_penalty": 1.1},
}


@pytest.mark.parametrize(
    "tensor", ["output_norm.weight", "output.weight", "token_embd.weight", "blk.0.ffn_down.weight"]
)
async def test_weights_that_are_no_numbers_are_told_and_the_worker_lives(tmp_path: Path, tensor: str) -> None:
    async with serving(odd.not_numbers(tmp_path / "nan.gguf", tensor=tensor), context=64) as worker:
        for sampling in SAMPLING.values():
            response = await worker.infer("m", stream=False, **sampling)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (500, "MODEL_LOAD_FAILED")
            assert "NaN" in error["message"]
            assert "another quantisation" in error["hint"]
            assert error["details"]["reason"] == "nan"
        told = events((await worker.infer("m")).text)
        assert [event["error"]["details"]["reason"] for event in told] == ["nan"]
        assert worker.status.now.state == "idle"


@pytest.mark.parametrize(
    "settings",
    [
        {"add_eos_token": True},
        {"add_eos_token": True, "add_bos_token": False},
        {"add_bos_token": False},
        {"add_sep_token": True},
        {"add_eos_token": True, "add_sep_token": True, "add_bos_token": True},
        {},
    ],
    ids=lambda settings: "+".join(f"{key}={value}" for key, value in settings.items()) or "none",
)
async def test_nothing_stands_behind_a_prompt_that_is_to_be_continued(
    tmp_path: Path, settings: dict[str, bool]
) -> None:
    async with serving(odd.of_tokenizer(tmp_path / "m.gguf", **settings), context=64) as worker:
        assert await worker.text("m", max_tokens=4) == "nopq"
        assert await worker.text("m", max_tokens=4, raw=True) == "nopq"


@pytest.mark.parametrize("make", [odd.encoder_decoder, lambda path: odd.chain(path, attention__causal=False)])
async def test_a_worker_refuses_what_writes_no_text(tmp_path: Path, make: Any) -> None:
    """The hive has refused it before; a worker of its own would abort, or answer with nothing."""
    async with serving(make(tmp_path / "m.gguf"), context=64) as worker:
        error = (await worker.client.get("/v1/ready")).json()["error"]
        assert error["details"]["reason"] == "unsupported"
        assert "not a model that writes text" in error["message"]
