"""Builds llama-server, what the bench compares rbee with, once, from the source archive of the engine.

Nothing of it goes into the product. It is built as its own instructions say: for this processor, with OpenMP, without
our changes to the source. Only what fetches something over the network is left out, and its page for browsers.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cache
import llama
from progress import Progress, exit_code

FLAGS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "GGML_OPENMP": "ON",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
}
JOBS = int(os.environ.get("RBEE_BENCH_JOBS") or len(os.sched_getaffinity(0)))


def program() -> Path:
    """The file of llama-server, built first if the cache does not hold it. Raises StepFailed."""
    parts = [FLAGS, llama.SOURCE_LOCK.read_text("utf-8"), _processor()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    home = cache.folder() / "llama-server" / f"{llama.version()}-{digest[:16]}"
    if not home.exists():
        cache.remove_abandoned(home.parent)
        with cache.lock(home.parent / f".{home.name}.lock"):
            if not home.exists():
                _build(home)
    cache.remove_unused(home.parent, home)
    return home / "llama-server"


def _processor() -> str:
    """What a program for this processor alone depends on."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _build(home: Path) -> None:
    log = home.parent / f"{home.name}.log"
    with (
        tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch,
        log.open("w", encoding="utf-8") as log_file,
    ):
        work = Path(scratch)
        runner = llama.Runner(log_file, log, llama.tool_environment(work))
        source, build = llama.fetch(runner, work) / "vendor" / "llama.cpp", work / "build"
        defines = [f"-D{name}={value}" for name, value in FLAGS.items()]
        with Progress("building llama-server for the bench, about 10 min, once") as progress:
            runner.run("cmake", ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *defines])
            runner.run("ninja", ["ninja", "-C", str(build), "-j", str(JOBS), "llama-server"], progress)
        out = work / "out"
        out.mkdir()
        (build / "bin" / "llama-server").rename(out / "llama-server")
        out.rename(home)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: print(program())))
