"""Steps about GGUF files: what their headers say, how large they are, what they come to in memory."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pytest_bdd import given, parsers, then, when

from tests.kit import models, odd_models, tinyllama

if TYPE_CHECKING:
    import subprocess

    from features.lab.machine import Machine
    from features.lab.seen import Seen
    from tests.kit.hub import Hub

M = f"hf:{tinyllama.REPOSITORY}"
CACHE_PER_TOKEN = 2 * tinyllama.LAYERS * 256 * 2
"""Bytes: keys and values of 256 numbers each, with 16 bits a number."""
SETTLED_MB = 0.3
"""MB that a worker's memory differs by from one start to another."""


@given("the hub holds M among files that are no models")
def _among_others(hub: Hub, tmp_path: Path, llamas: dict[str, Path]) -> None:
    others = ("README.md", "config.json", "pytorch_model.bin", "model.gguf.txt", "gguf", "mmproj-model-f16.gguf")
    hub.repositories.clear()
    for name in others:
        (tmp_path / name).write_text("no model")
        hub.add(tinyllama.REPOSITORY, tmp_path / name, is_large=False)
    hub.add(tinyllama.REPOSITORY, llamas["Q4_K_M"], name="model.GGUF")


@given(parsers.parse("the user's own file {name}, of which only its header says that it is in {quantisation}"))
def _own_file(machine: Machine, llamas: dict[str, Path], seen: Seen, name: str, quantisation: str) -> None:
    _keep(machine, seen, name, llamas[quantisation].read_bytes())


@given("the user's own file bees.gguf, whose header names the letter m as the end token")
def _other_end(machine: Machine, llamas: dict[str, Path], seen: Seen) -> None:
    whole = llamas["Q4_K_M"].read_bytes()
    key = b"tokenizer.ggml.eos_token_id" + struct.pack("<I", 4)  # GGUF's number for a whole number of 32 bits
    before = key + struct.pack("<I", models.END)
    assert whole.count(before) == 1
    _keep(machine, seen, "bees.gguf", whole.replace(before, key + struct.pack("<I", models.byte("m"))))


@given(parsers.re(r"the user's own file (?P<name>\S+), which is (?P<what>.+)"))
def _bad_file(machine: Machine, llamas: dict[str, Path], seen: Seen, name: str, what: str) -> None:
    whole = llamas["Q4_K_M"].read_bytes()
    content = {
        "in GGUF": whole,
        "a text": b"Once upon a time\n",
        "cut off at 1 MB": whole[:1_000_000],
        "cut in its header": whole[:100_000],
    }
    _keep(machine, seen, name, content[what])


@given("the user's own file my bees (1).gguf, an embedding model")
def _embeddings(machine: Machine, seen: Seen, tmp_path: Path) -> None:
    made = odd_models.chain(tmp_path / "odd.gguf", "bert", attention__causal=False, pooling_type=1)
    _keep(machine, seen, "my bees (1).gguf", made.read_bytes())


@given("the user's own file my bees (1).gguf, a model of an architecture of 2030")
def _newer(machine: Machine, seen: Seen, tmp_path: Path) -> None:
    made = odd_models.chain(tmp_path / "odd.gguf", "bumblebee")
    _keep(machine, seen, "my bees (1).gguf", made.read_bytes())


def _keep(machine: Machine, seen: Seen, name: str, content: bytes) -> None:
    path = machine.home / name
    path.write_bytes(content)
    seen.model = f"file:{path}"


@given("the hub holds M in Q4_K_M, Q5_K_M and Q8_0, each with 5 MB that its header does not mention")
def _padded(hub: Hub, tmp_path: Path, llamas: dict[str, Path]) -> None:
    hub.repositories.clear()
    for quantisation in tinyllama.QUANTISATIONS:
        padded = Path(shutil.copy(llamas[quantisation], tmp_path))
        with padded.open("ab") as file:
            file.write(b"bees" * 1_250_000)
        hub.add(tinyllama.REPOSITORY, padded)


@given("workers have one slot of 200 tokens")
def _small_context(machine: Machine) -> None:
    machine.env |= {"RBEE_WORKER_SLOTS": "1", "RBEE_WORKER_CONTEXT": "200"}


@when("the user has that file shown")
def _show(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("models", "show", seen.model)


@when(parsers.re(r"the user runs infer with that file and 100 tokens(?P<script> for a script)?"))
def _infer(machine: Machine, seen: Seen, script: str | None) -> None:
    seen.done = _run(machine, seen.model, *(["--json"] if script else []))


@when("the user runs infer with M in Q4_K_M, Q5_K_M and Q8_0")
def _infer_each(machine: Machine, seen: Seen) -> None:
    seen.of_quantisations, seen.memory, seen.reckoned = {}, {}, {}
    for quantisation in tinyllama.QUANTISATIONS:
        seen.of_quantisations[quantisation] = done = _run(machine, f"{M}:{quantisation}")
        assert done.returncode == 0, done.stderr.decode()
        (row,) = [row for row in machine.workers() if row["model_ref"].endswith(f":{quantisation}")]
        seen.memory[quantisation] = psutil.Process(row["pid"]).memory_info().rss
        words = machine.worker_processes()[row["pid"]]
        seen.reckoned[quantisation] = int(words[words.index("--memory") + 1])


def _run(machine: Machine, model: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    asked = ("--model", model, "--prompt", "Tell me the alphabet", "--max-tokens", "100", "--temperature", "0")
    return machine.run("infer", *asked, *more)


@then("what its header says is shown")
def _shown(seen: Seen) -> None:
    text = seen.done.stdout.decode()
    for name, value in {
        "name": "tinyllama",
        "architecture": "llama",
        "parameters": r"\d+\.\d million",
        "quantisation": "Q5_K_M",
        "layers": str(tinyllama.LAYERS),
        "context": f"{tinyllama.CONTEXT} tokens",
        "vocabulary": "32000 tokens",
        "end token": str(models.END),
        "chat template": "yes",
    }.items():
        assert re.search(rf"^  {name} +{value}$", text, re.MULTILINE), text


@then("stdout holds M's whole answer")
def _answer(seen: Seen) -> None:
    assert seen.done.stdout.decode() == tinyllama.ANSWER + "\n"


@then(parsers.parse("its header gives a vocabulary of {vocabulary:d} tokens, the end token {end:d} and {quantisation}"))
def _header(machine: Machine, vocabulary: int, end: int, quantisation: str) -> None:
    header = json.loads(machine.run("models", "show", M, "--json").stdout)["header"]
    assert (header["vocabulary"], header["end_token"], header["quantisation"]) == (vocabulary, end, quantisation)


@then(parsers.parse("it has stopped after the {letters:d} letters of M's answer, at the end token"))
def _stopped(seen: Seen, letters: int) -> None:
    summary = json.loads(seen.done.stdout)
    assert summary["text"] == tinyllama.ANSWER[:letters]
    assert summary["stop_reason"] == "eos"
    assert summary["total_tokens"] == letters


@then("each gives M's whole answer")
def _each_answers(seen: Seen) -> None:
    assert [done.stdout.decode() for done in seen.of_quantisations.values()] == [tinyllama.ANSWER + "\n"] * 3


@then("the larger its file, the more memory a worker takes")
def _memory_rises(seen: Seen, llamas: dict[str, Path]) -> None:
    sizes = [llamas[quantisation].stat().st_size for quantisation in seen.memory]
    assert sizes == sorted(sizes)
    least, middle, most = [memory / 1e6 for memory in seen.memory.values()]
    assert least + SETTLED_MB < middle, seen.memory
    assert middle + SETTLED_MB < most, seen.memory


@then("the catalogue's sizes are those of the files on the disk")
def _sizes(machine: Machine, llamas: dict[str, Path], seen: Seen) -> None:
    (node,) = json.loads(machine.run("models", "list", "--json").stdout)["nodes"]
    seen.sizes = {row["variant"]: row["size_bytes"] for row in node["models"]}
    folder = machine.home / ".local/share/rbee/models/hf" / tinyllama.REPOSITORY
    for quantisation in tinyllama.QUANTISATIONS:
        on_disk = (folder / llamas[quantisation].name).stat().st_size
        assert seen.sizes[quantisation] == on_disk == llamas[quantisation].stat().st_size + 5_000_000


@then("the check reckoned with 1.2 times these sizes and the cache of 200 tokens")
def _reckoned(seen: Seen) -> None:
    for quantisation, done in seen.of_quantisations.items():
        needed = int(seen.sizes[quantisation] * 1.2) + CACHE_PER_TOKEN * 200
        assert f"{M}:{quantisation} takes {needed / 1e6:.0f} of " in done.stderr.decode()
        assert seen.reckoned[quantisation] == needed, "the worker makes the same check before it loads"


@then("no worker has ever run")
def _no_worker(machine: Machine) -> None:
    assert machine.processes() == {}
    assert not list(machine.state.glob("logs/worker-*"))
