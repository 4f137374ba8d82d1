"""Holds what a model writes to a grammar, with llguidance: at each place it says which tokens are allowed.

https://github.com/guidance-ai/llguidance (docs/syntax.md, docs/json_schema.md).
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

from rbee.errors import InvalidRequestError, WorkerFailedError
from rbee.worker.llama.logits import TokenMask

if TYPE_CHECKING:
    from rbee.worker.llama.logits import Row
    from rbee.worker.llama.model import Model

_MAX_REASON: Final = 300
_SPECIAL: Final = b"\xff"
"""Before the text of a token that is no text, as llguidance wants it."""


class Constraint:
    """One generation under a grammar; an `engine.backend.Constraint`."""

    def __init__(self, matcher: Any, tokens: int) -> None:
        self._matcher = matcher
        self._mask = TokenMask(tokens)

    def apply(self, row: Row) -> None:
        """Forbid what cannot come next. Raises WorkerFailedError where the grammar has become too complex for that."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.address, self._mask.size)
        self._check()
        self._mask.apply(row)

    def accept(self, token: int) -> None:
        """Go on behind a token that was allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise WorkerFailedError(f"the format of the answer could not be kept to: {_reason(self._matcher)}")


class ConstraintCompiler:
    """Makes constraints for one model; may be called from any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def compile(self, grammar: str) -> Constraint:
        """Return a constraint to a grammar in llguidance's Lark, or in its JSON form of several.

        Takes some milliseconds, and for the first one of a model up to a second. Raises InvalidRequestError with the
        compiler's words where it is none, and where this machine cannot run the library.
        """
        try:
            from llguidance import LLMatcher
        except ImportError as exc:
            raise InvalidRequestError(
                f"field conversation.format: constrained output does not run on this machine ({exc})",
                field="conversation.format",
                rule="left out",
            ) from exc
        matcher = LLMatcher(self._known_tokens(), grammar, log_level=0)
        if matcher.is_error():
            raise InvalidRequestError(
                f"field conversation.format: it cannot be kept to: {_reason(matcher)}",
                field="conversation.format",
                rule="a schema or grammar that can be compiled",
            )
        return Constraint(matcher, self._model.tokens)

    def _known_tokens(self) -> Any:
        import llguidance

        with self._lock:
            if self._tokenizer is None:
                model = self._model
                texts = [
                    _SPECIAL + text if is_control else text
                    for text, is_control in (model.token_text(token) for token in range(model.tokens))
                ]
                make: Any = llguidance.LLTokenizer  # its stub does not know how it is made of a vocabulary of llama.cpp
                self._tokenizer = make.from_llamacpp(
                    tokens=texts,
                    vocab_ptr=model.vocabulary_address,
                    tokenize_fptr=ctypes.cast(model.llama.libllama.llama_tokenize, ctypes.c_void_p).value,
                    eos_token=model.end_tokens(),
                )
        return self._tokenizer


def _reason(matcher: Any) -> str:
    """Return the first line of what the library says, which may quote the grammar."""
    text = str(matcher.get_error()).strip().splitlines()
    return "".join(letter if letter.isprintable() else " " for letter in text[0])[:_MAX_REASON] if text else "no reason"
