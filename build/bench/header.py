"""Measures how long it takes to show a model with a vocabulary of 150,000, and what of it the header costs.

python3 build/bench/header.py        after `python3 build/test.py zipapp`

The bounds are for a queen and a hive that run, and for the reader in its process alone; starting the two daemons for
one command takes longer than either.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

import gguf  # noqa: E402

from features.lab.machine import Machine  # noqa: E402

RUNS = 11
VOCABULARY, MERGES = 150_000, 300_000
SECONDS = 1.0


def main() -> int:
    """Print the table; returns 1 when the bound is missed."""
    with tempfile.TemporaryDirectory() as folder:
        large = make(Path(folder) / "large.gguf", VOCABULARY, MERGES)
        small = make(Path(folder) / "small.gguf", 300, 0)
        machine = Machine(Path(folder))
        machine.run("--version")  # extracts the program
        machine.start_queen()
        try:
            machine.run("models", "show", f"file:{small}")  # starts the hive
            shown: dict[Path, list[float]] = {large: [], small: []}
            read: dict[Path, list[float]] = {large: [], small: []}
            for _ in range(RUNS):
                for path in (large, small):
                    shown[path].append(seconds(machine, "models", "show", f"file:{path}"))
                    read[path].append(seconds(machine, "model-header", str(path)))
        finally:
            machine.end()
        size = large.stat().st_size
    rows = [
        (f"models show, vocabulary of {VOCABULARY}, s", statistics.median(shown[large]), SECONDS),
        ("models show, slowest, s", max(shown[large]), None),
        ("models show, vocabulary of 300, s", statistics.median(shown[small]), None),
        ("the reader's process, s", statistics.median(read[large]), None),
        ("the reader's process, vocabulary of 300, s", statistics.median(read[small]), None),
        ("the header, MB", size / 1e6, None),
    ]
    for what, value, bound in rows:
        verdict = "" if bound is None else f"  {bound:g}  {'ok' if value <= bound else 'MISSED'}"
        print(f"{what:<46} {value:9.2f}{verdict}")
    return 0 if all(bound is None or value <= bound for _, value, bound in rows) else 1


def make(path: Path, vocabulary: int, merges: int) -> Path:
    """Write a model that is all header, with a tokenizer as Llama 3 has it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("header")
    writer.add_context_length(8192)
    writer.add_embedding_length(4096)
    writer.add_block_count(32)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"token{number}" for number in range(vocabulary)])
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    if merges:
        writer.add_token_merges([f"to{number} ken{number}" for number in range(merges)])
    writer.add_eos_token_id(vocabulary - 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def seconds(machine: Machine, *arguments: str) -> float:
    """Run a command that has to succeed, and return how long it took."""
    started = time.perf_counter()
    done = machine.run(*arguments)
    took = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return took


if __name__ == "__main__":
    sys.exit(main())
