"""What a context takes, as `rbee model-header` says it: by the engine, or the header where that does not load it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rbee.wire.gguf import ModelHeader
from tests.kit import odd_models as odd
from tests.kit.worker_child import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BYTES = 2 * 8 * (8 + 8)
"""Of one token in one layer of the chain: 8 heads of 8 values for the key and for the value, of 16 bits each."""
HYBRID = [8 if layer in (2, 5, 8, 10, 12, 14) else 0 for layer in range(16)]


def unknown(**values: Any) -> Callable[[Path], Path]:
    """Return what makes a model that the engine does not load, for want of what its layers are made of."""
    return lambda path: odd.chain(path, "bumblebee", **values)


CASES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "one layer": (odd.chain, BYTES),
    "fewer heads for keys": (lambda path: odd.chain(path, attention__head_count_kv=8), BYTES),
    "attention in two of four layers": (odd.hybrid, 2 * BYTES),
    "no attention": (odd.recurrent, 0),
    "an array for the layers": (unknown(block_count=16, attention__head_count_kv=HYBRID), 6 * BYTES),
    "layers that differ": (unknown(block_count=4, attention__head_count_kv=[1, 2, 4, 8]), 15 * BYTES // 8),
    "one array longer than the layers": (unknown(block_count=2, attention__head_count_kv=[8, 0, 8]), BYTES),
    "attention in each fourth layer": (unknown(block_count=8, full_attention_interval=4), 2 * BYTES),
    "each fourth of eleven": (unknown(block_count=11, full_attention_interval=4), 2 * BYTES),
    "an interval of one": (unknown(block_count=3, full_attention_interval=1), 3 * BYTES),
    "recurrent layers that are named": (
        unknown(block_count=4, attention__recurrent_layers=[True, True, False, True]), BYTES,
    ),
    "other lengths of keys and values": (
        unknown(block_count=2, attention__key_length=192, attention__value_length=128), 2 * 2 * 8 * (192 + 128),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelHeader]:
    folder = tmp_path_factory.mktemp("models")
    paths = [make(folder / f"m{number}.gguf") for number, (make, _) in enumerate(CASES.values())]
    command = [sys.executable, "-m", "tests.kit.header_forks"]
    lines = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=120, check=True)
    found = [msgspec.json.decode(json.loads(line)[3], type=ModelHeader) for line in done.stdout.splitlines()]
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_only_the_layers_that_keep_tokens_count(headers: dict[str, ModelHeader], name: str) -> None:
    assert headers[name].kv_bytes_per_token() == CASES[name][1]
    is_known = headers[name].architecture != "bumblebee"
    assert (headers[name].unsupported is None) == is_known, "so the engine was asked, and the header otherwise"


def test_a_recurrent_layer_keeps_a_state_for_each_sequence(headers: dict[str, ModelHeader]) -> None:
    header = headers["no attention"]
    state = 4 * (3 * 1024 + 16 * 1024)  # the last three inputs of the convolution, and the state, in 32 bits
    assert header.state_bytes == pytest.approx(state, abs=11_000)
    assert header.fixed_cache_bytes(4, 4096) == 4 * header.state_bytes
