"""A model in memory: loaded with progress, asked for its vocabulary, freed."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Final

from rbee.errors import ModelLoadFailedError
from rbee.wire import model_kind
from rbee.worker.llama import dry_run, library
from rbee.worker.llama.constraint import ConstraintCompiler
from rbee.worker.prefix_store.model_key import ModelFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rbee.wire.gguf import ModelHeader
    from rbee.worker.engine.backend import Constraint
    from rbee.worker.llama.complaints import Complaints
    from rbee.worker.llama.functions import ModelHandle

_SPLIT_NONE: Final = 0
_ALL_LAYERS: Final = -1
_CONTROL: Final = 1 << 3 | 1 << 0
"""LLAMA_TOKEN_ATTR_CONTROL, and UNKNOWN, which the tokenizer reads as the former (llama.h)."""
_BUILT_IN: Final = b"mistral-v7-tekken"

_NUMBER_BYTES: Final = 24
_DAMAGED: Final = ("corrupt", "incomplete", "not within the file bounds", "reached end of file", "read error")
"""What llama.cpp says where the weights are not what the header announces."""


class LoadAbortedError(Exception):
    """Loading was given up because the caller asked for it."""


class Model:
    """A loaded model, and an `engine.backend.Vocabulary`, which documents it; for any thread until `close`."""

    def __init__(
        self,
        path: Path,
        header: ModelHeader,
        *,
        backend: str = "cpu",
        device: int = 0,
        progress: Callable[[float], None] | None = None,
        abort: threading.Event | None = None,
    ) -> None:
        """Load the model; takes as long as it takes, so call it in a thread.

        `progress` gets values from 0 to 1, in this thread; setting `abort` makes loading end with LoadAbortedError.
        Raises ModelLoadFailedError.
        """
        self.llama = library.load()
        lib = self._lib = self.llama.functions
        params = lib.llama_model_default_params()
        if backend == "cpu":
            params.n_gpu_layers = 0
        elif lib.llama_supports_gpu_offload():
            params.n_gpu_layers, params.split_mode, params.main_gpu = _ALL_LAYERS, _SPLIT_NONE, device
        else:
            raise ModelLoadFailedError(f"this engine has no backend {backend}", reason="backend")

        def go_on(done: float, _data: int) -> bool:
            if progress is not None:
                progress(done)
            return abort is None or not abort.is_set()

        files = ModelFiles(path)
        params.progress_callback = callback = lib.llama_progress_callback(go_on)
        self.llama.complaints.clear()
        handle = lib.llama_model_load_from_file(bytes(path), params)
        del callback  # it had to live until here
        if not handle:
            if abort is not None and abort.is_set():
                raise LoadAbortedError
            raise explain(path, header, self.llama.complaints)
        self.handle: ModelHandle = handle
        self._is_open = True
        self._vocab = lib.llama_model_get_vocab(handle)
        self.size_bytes = lib.llama_model_size(handle)
        self.layers = lib.llama_model_n_layer(handle)
        self.trained_length = lib.llama_model_n_ctx_train(handle)
        self.tokens = lib.llama_vocab_n_tokens(self._vocab)
        # A recurrent layer keeps nothing but the state after the last token; the compressed one of DeepSeek 4 (not its
        # window) cannot be cut either.
        self.is_recurrent = (
            lib.llama_model_is_recurrent(handle)
            or lib.llama_model_is_hybrid(handle)
            or header.architecture == "deepseek4"
        )
        self.keeps_tokens = not lib.llama_model_is_recurrent(handle)
        self.window = lib.llama_model_n_swa(handle)
        self.fingerprint = files.identity()
        self.architecture = header.architecture
        bos = lib.llama_vocab_bos(self._vocab)
        self._begin = [bos] if bos >= 0 and lib.llama_vocab_get_add_bos(self._vocab) else []
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)
        self._lock = threading.Lock()
        self._constraints = ConstraintCompiler(self)
        if (kind := dry_run.kind_of(lib, handle)) != model_kind.TEXT:
            self.close()
            raise model_kind.not_text(path.name, kind, architecture=header.architecture)

    @property
    def chat_template(self) -> str | None:
        return self._template(None)

    @property
    def tools_template(self) -> str | None:
        return self._template(b"tool_use")

    def _template(self, name: bytes | None) -> str | None:
        found = self._lib.llama_model_chat_template(self.handle, name)
        # For one model without a template llama.cpp gives the name of one that it has built in.
        return None if found is None or found == _BUILT_IN else found.decode("utf-8", "replace")

    @property
    def begin_text(self) -> str:
        return self._text_of(self._lib.llama_vocab_bos(self._vocab))

    @property
    def end_text(self) -> str:
        return self._text_of(self._lib.llama_vocab_eos(self._vocab))

    def _text_of(self, token: int) -> str:
        if token < 0:
            return ""
        text = self._lib.llama_vocab_get_text(self._vocab, token)
        return "" if text is None else text.decode("utf-8", "replace")

    def number(self, key: str) -> int | None:
        """Return a whole number of the model's metadata, whose key begins with the architecture; None without it."""
        text = ctypes.create_string_buffer(_NUMBER_BYTES)
        name = f"{self.architecture}.{key}".encode()
        self._lib.llama_model_meta_val_str(self.handle, name, text, _NUMBER_BYTES)
        return int(text.value) if text.value.isdigit() else None

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            # Without llama.cpp's "special" tokens: with them some models get their end token behind the prompt too,
            # and have nothing left to say. The begin token is all that belongs to a text that is to be continued.
            count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, room, False, control)
            if count >= 0:
                return [*self._begin, *tokens[:count]] if begin else tokens[:count]
            room = -count

    def control_tokens(self) -> dict[str, int]:
        attributes = self._lib.llama_vocab_get_attr
        return {
            self._text_of(token): token for token in range(self.tokens) if attributes(self._vocab, token) & _CONTROL
        }

    def piece(self, token: int, *, control: bool = False) -> bytes:
        if (known := self._pieces.get((token, control))) is None:
            known = self._pieces[token, control] = self._piece(token, control=control)
        return known

    def _piece(self, token: int, *, control: bool) -> bytes:
        with self._lock:
            size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, control)
            if size < 0:
                self._buffer = ctypes.create_string_buffer(-size)
                size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, control)
            return self._buffer.raw[:size]

    def token_text(self, token: int) -> tuple[bytes, bool]:
        """Return what a token adds to a text in which control tokens are seen, and whether it is one."""
        return self._piece(token, control=True), bool(self._lib.llama_vocab_get_attr(self._vocab, token) & _CONTROL)

    def end_tokens(self) -> list[int]:
        found = [token for token in range(self.tokens) if self.is_end(token)]
        return sorted(found, key=lambda token: token != self._lib.llama_vocab_eos(self._vocab))

    @property
    def vocabulary_address(self) -> int:
        """The address of llama.cpp's vocabulary, for a library that tokenises with it."""
        return self._vocab

    def infill_tokens(self) -> tuple[int, int, int] | None:
        lib, vocab = self._lib, self._vocab
        before, after, middle = (
            lib.llama_vocab_fim_pre(vocab),
            lib.llama_vocab_fim_suf(vocab),
            lib.llama_vocab_fim_mid(vocab),
        )
        return None if min(before, after, middle) < 0 else (before, after, middle)

    def constrained(self, grammar: str) -> Constraint:
        return self._constraints.compile(grammar)

    def is_end(self, token: int) -> bool:
        return self._lib.llama_vocab_is_eog(self._vocab, token)

    def close(self) -> None:
        """Free the memory; every context of the model must be closed by then."""
        if self._is_open:
            self._is_open = False
            self._lib.llama_model_free(self.handle)


def explain(path: Path, header: ModelHeader, complaints: Complaints) -> ModelLoadFailedError:
    """Return why loading failed, from what llama.cpp complained about."""
    lower = " ".join(complaints.lines()).lower()
    if "alloc" in lower or "out of memory" in lower or "mmap failed" in lower:
        return ModelLoadFailedError(
            f"{path.name}: not enough memory",
            hint="try a model with a smaller quantisation, or a smaller context",
            reason="out_of_memory",
        )
    # Names of tensors and keys help; paths are nobody's business. The line that names the cause says so.
    causes = [line.partition("error loading model: ")[2] for line in complaints.lines() if "error loading" in line]
    cause = causes[0].replace(str(path), path.name)[:200] if causes else "no reason given"
    if any(words in lower for words in _DAMAGED):
        return ModelLoadFailedError(f"{path.name} is corrupt: {cause}", reason="corrupt")
    return model_kind.unsupported(path.name, dry_run.in_words(cause), architecture=header.architecture)
