"""Asks the engine whether it can load a model, without the weights: its own answer is right for any version of it.

llama.cpp loads it as ever, architecture, vocabulary and the shapes of all tensors, but allocates and reads no weights
(`no_alloc`). That takes 0.3 s for a vocabulary of 150,000, and 1 ms for a small one. A file may be made to crash it, or
be one that it was never meant for: so this happens in a fork.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.errors import ModelLoadFailedError
from rbee.wire.model_kind import TEXT, UNKNOWN
from rbee.worker.llama.cache_size import CacheSize
from rbee.worker.output.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rbee.worker.llama.functions import Functions, ModelHandle

CPU_SECONDS: Final = 5
MEMORY_BYTES: Final = 1 << 30
"""Of address space, beside what the process has: the engine's libraries, and the vocabulary several times."""
_MAX_CAUSE: Final = 200
_FAULTS: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE, signal.SIGBUS)
"""How native code ends over a file; with others a limit, the system or the processor is the reason."""


_UNKNOWN: Final = {
    r"unknown model architecture: '(.*?)'": "architecture",
    r"unknown pre-tokenizer type: '(.*?)'": "pre-tokenizer",
    r"unknown tokenizer: '(.*?)'": "tokenizer",
}
"""What llama.cpp says about what it does not know (llama-model.cpp, llama-vocab.cpp)."""


class Verdict(msgspec.Struct):
    """What the engine said: `cause` is why it does not load the model, empty where it does."""

    cause: str = ""
    kind: str = TEXT
    cache: CacheSize | None = None


def ask(path: Path, *, vocabulary_only: bool = False) -> Verdict | None:
    """Return the verdict about the model in `path`, or None where it cannot be had here.

    With `vocabulary_only` its tensors are not looked at: those of a split model may lie in files that are not there.
    """
    output, writes = os.pipe()
    if not (pid := os.fork()):
        try:
            os.close(output)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):  # native code may have its say there, and stdout is our parent's answer
                os.dup2(nowhere, stream)
            for verdict in _ask(path, vocabulary_only):
                os.write(writes, msgspec.json.encode(verdict) + b"\n")
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(output, "rb") as file:
        said = file.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if said:
        return msgspec.json.decode(said[-1], type=Verdict)
    if -code in _FAULTS:
        return Verdict(cause=f"its process ended over it ({signal.Signals(-code).name})")
    return None


def in_words(cause: str) -> str:
    """Return a cause that llama.cpp gave, for people."""
    for pattern, what in _UNKNOWN.items():
        if found := re.search(pattern, cause):
            return f"{UNKNOWN} the {what} {found[1]}"
    return f"this engine does not load it: {cause}"


def _ask(path: Path, vocabulary_only: bool) -> Iterator[Verdict]:
    """Yield what is known, and then what is known more: native code may end this process in between."""
    from rbee.worker.llama import cache_size, library

    logging.disable()
    _raise_limits()
    try:
        llama = library.load()
    except ModelLoadFailedError:
        return  # the worker will say so
    lib = llama.functions
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = 0  # LLAMA_LOAD_MODE_NONE: a mapping of the weights is what is to be spared
    params.vocab_only, params.no_alloc = vocabulary_only, not vocabulary_only
    model = lib.llama_model_load_from_file(bytes(path), params)
    if not model:
        cause = _cause(llama.complaints.lines())
        if "bad_alloc" not in cause:
            yield Verdict(cause=cause)
        return
    verdict = Verdict(kind=kind_of(lib, model))
    yield verdict
    if verdict.kind == TEXT and not vocabulary_only:
        verdict.cache = cache_size.measure(llama, model)
        yield verdict
        if verdict.cache is not None:
            verdict.cache.can_quantise = cache_size.can_quantise(llama, model)
            yield verdict


def kind_of(lib: Functions, model: ModelHandle) -> str:
    """Return which of `model_kind.KINDS` the engine takes a loaded model for, or `TEXT`."""
    if lib.llama_model_is_diffusion(model):
        return "diffusion"
    if not lib.llama_model_has_decoder(model):
        return "encoder"
    return "encoder_decoder" if lib.llama_model_has_encoder(model) else TEXT


def _cause(complaints: list[str]) -> str:
    """Return the end of the line that names the cause; the others say which functions it passed through."""
    causes = [line.rpartition("error loading model")[2] for line in complaints if "error loading model" in line]
    cause = causes[0] if causes else (complaints or ["no reason given"])[-1]
    text = cause.partition(": ")[2] or cause
    return printable(text[:_MAX_CAUSE], "�")


def _raise_limits() -> None:
    """Let this process take more than the header's reader, and bound it all the same."""
    pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: PTH123, SIM115
    most = pages * resource.getpagesize() + MEMORY_BYTES
    for kind, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CPU, CPU_SECONDS)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
