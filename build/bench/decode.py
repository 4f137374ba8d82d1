"""Measures decoding through the worker against llama.cpp's own loop, on the same model with the same threads.

python3 build/bench/decode.py [--rounds 5] [--tokens 200] [--threads N]

The baseline is the bare `llama_decode` of one token after another: no sampling, no text, no HTTP. It runs in a process
of its own, in turns with the worker, so that whatever else the machine does meets both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

try:
    import gguf
    import numpy as np
except ImportError:
    import environment

    environment.enter()
    import gguf
    import numpy as np

KEY = "rbee_w_bench"
PROMPT = "Once upon a time there was a bee. "
WIDTH, LAYERS, FEED_FORWARD, HEADS, VOCABULARY, CONTEXT = 768, 12, 2048, 12, 8000, 1024
"""A Llama with 97 million weights."""
BOUND = 0.95


def make_model() -> Path:
    """Return a Llama of random weights in Q8_0, made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rbee" / "bench"
    path = cache / f"random-{WIDTH}x{LAYERS}-{VOCABULARY}.Q8_0.gguf"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    writer = gguf.GGUFWriter(scratch, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    texts = [b"<unk>", b"<s>", b"</s>", *(f"<0x{value:02X}>".encode() for value in range(256))]
    words = [f"w{number}".encode() for number in range(VOCABULARY - len(texts))]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(words)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*texts, *words])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    # No token ends the text, so that every run has the length it was asked for.
    writer.add_eos_token_id(0)
    generator = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        values = generator.normal(0, 0.02, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    ones = np.ones(WIDTH, np.float32)
    add("token_embd.weight", VOCABULARY, WIDTH)
    add("output.weight", VOCABULARY, WIDTH)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        for part in ("q", "k", "v", "output"):
            add(f"blk.{layer}.attn_{part}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    scratch.rename(path)
    return path


def baseline(model_path: Path, threads: int) -> None:
    """Serve measurements over stdin and stdout: a line with a number of tokens in, the seconds they took out."""
    from rbee.worker.engine.backend import BatchPart
    from rbee.worker.llama import header
    from rbee.worker.llama.context import Context
    from rbee.worker.llama.model import Model

    model = Model(model_path, header.read(model_path))
    context = Context(model, slots=4, length=CONTEXT, threads=threads)
    prompt = model.tokenize(PROMPT)
    for line in sys.stdin:
        count = int(line)
        context.remove(0)
        context.decode([BatchPart(0, prompt, 0, True)])
        started = time.perf_counter()
        for position in range(len(prompt), len(prompt) + count):
            context.decode([BatchPart(0, [300 + position], position, True)])
        print(time.perf_counter() - started, flush=True)


class Baseline:
    """The child that runs `baseline`."""

    def __init__(self, model: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--baseline", str(model), "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, tokens: int) -> float:
        """Tokens a second."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{tokens}\n")
        self.process.stdin.flush()
        return tokens / float(self.process.stdout.readline())


class Worker:
    """A worker process, and a socket for its callback."""

    def __init__(self, model: Path, threads: int, slots: int, folder: Path) -> None:
        worker = self
        worker.url = ""
        ready = threading.Event()

        class Hive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                worker.url = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["url"]
                worker.callback_ms = 1e3 * (time.perf_counter() - worker.started)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                ready.set()

            def log_message(self, *_: object) -> None:
                pass

        hive = ThreadingHTTPServer(("127.0.0.1", 0), Hive)
        threading.Thread(target=hive.serve_forever, daemon=True).start()
        command = [sys.executable, "-m", "rbee", "worker", "--id", str(uuid.uuid4()), "--model-ref", "file:/x.gguf"]
        command += ["--model-path", str(model), "--hive-url", f"http://127.0.0.1:{hive.server_port}"]
        command += ["--threads", str(threads), "--slots", str(slots), "--port-from", "19001"]
        log = (folder / "worker.log").open("wb")
        self.started = time.perf_counter()
        self.callback_ms = 0.0
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=subprocess.DEVNULL, stderr=log)
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"key": KEY}).encode() + b"\n")
        self.process.stdin.close()
        assert ready.wait(60), (folder / "worker.log").read_text()
        called_back = time.perf_counter()
        while True:
            with urllib.request.urlopen(f"{self.url}/v1/ready") as answer:
                if json.load(answer)["ready"]:
                    break
            time.sleep(0.001)
        self.load_ms = 1e3 * (time.perf_counter() - called_back)

    def generate(self, tokens: int) -> tuple[float, float]:
        """Return the rate between the first and the last token, and the seconds to the first."""
        body = json.dumps({"prompt": PROMPT, "max_tokens": tokens, "seed": 1}).encode()
        headers = {"Authorization": f"Bearer {KEY}"}
        asked = urllib.request.Request(f"{self.url}/v1/inference", body, headers)
        first = 0.0
        started = time.perf_counter()
        with urllib.request.urlopen(asked) as stream:
            for line in stream:
                if line.startswith(b'data: {"token"') and not first:
                    first = time.perf_counter()
                if line.startswith(b'data: {"done"'):
                    made = json.loads(line[6:])["total_tokens"]
                    assert made == tokens, made
                    return (tokens - 1) / (time.perf_counter() - first), first - started
        raise AssertionError("the stream ended early")

    def together(self, streams: int, tokens: int) -> float:
        """Return the tokens a second of several streams, all in all."""
        started = time.perf_counter()
        threads = [threading.Thread(target=self.generate, args=(tokens,)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return streams * tokens / (time.perf_counter() - started)

    def resident_mb(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/status").read_text().split()
        return int(fields[fields.index("VmRSS:") + 1]) / 1024

    def end(self) -> float:
        """Return how long the worker took to exit, in milliseconds."""
        started = time.perf_counter()
        self.process.terminate()
        assert self.process.wait() == 0
        return 1e3 * (time.perf_counter() - started)


def main() -> int:
    """Print the table; returns 1 when the bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="another model than the random one")
    options = parser.parse_args()
    if options.baseline:
        baseline(options.baseline, options.threads)
        return 0
    model = options.model or make_model()
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(model, options.threads, 8, Path(folder))
        bare = Baseline(model, options.threads)
        bare.rate(20)
        worker.generate(20)
        theirs, ours, firsts = [], [], []
        for _ in range(options.rounds):
            # Each side's threads are asleep again when the other one runs.
            time.sleep(0.3)
            theirs.append(bare.rate(options.tokens))
            time.sleep(0.3)
            rate, first = worker.generate(options.tokens)
            ours.append(rate)
            firsts.append(first)
        together = {streams: worker.together(streams, options.tokens // 2) for streams in (1, 4, 8)}
        resident = worker.resident_mb()
        exit_ms = worker.end()
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"model {model.name}, {options.threads} threads, load average {os.getloadavg()[0]:.1f}")
    rows = [
        ("bare llama_decode loop, median", statistics.median(theirs), "tokens/s"),
        ("through the worker's HTTP, median", statistics.median(ours), "tokens/s"),
        ("process start to ready callback", worker.callback_ms, "ms"),
        ("ready callback to model loaded", worker.load_ms, "ms"),
        ("request to first token, median", 1e3 * statistics.median(firsts), "ms"),
        *((f"{streams} streams, all in all", rate, "tokens/s") for streams, rate in together.items()),
        ("resident memory", resident, "MB"),
        ("SIGTERM to exit", exit_ms, "ms"),
    ]
    for name, value, unit in rows:
        print(f"{name:<40} {value:>10.1f} {unit}")
    print(f"{'ratio of the first two':<40} {ratio:>10.3f} (bound {BOUND}) {'ok' if ratio >= BOUND else 'MISSED'}")
    return 0 if ratio >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
