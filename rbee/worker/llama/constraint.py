"""Holds what a model writes to a grammar, with llguidance: at each place it says which tokens are allowed.

https://github.com/guidance-ai/llguidance (docs/syntax.md, docs/json_schema.md).
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

from rbee.errors import InvalidRequestError
from rbee.worker.llama.logits import TokenMask
from rbee.worker.output.grammar import GBNF, LARK, uncompilable
from rbee.worker.output.printable import printable
from rbee.worker.output.schema_parts import place_of

if TYPE_CHECKING:
    from rbee.worker.llama.library import Llama
    from rbee.worker.llama.logits import Row

MAX_COMPILED: Final = 32
"""Grammars that are kept as they were compiled, some hundred KB each."""
MAX_EXPRESSIONS: Final = 100_000
"""What a grammar's regular expressions may come to. The time for one token grows with its square, and the engine waits:
`(a{1000}){100}` took a second for each with llguidance's own limit, a million. An enum may have 3,000 texts so."""
MASK_SECONDS: Final = 0.2
"""Of a processor, for the first token at most; some ms are usual."""
_TOO_COMPLEX: Final = "it is too complex: have it repeat less"
_MAX_REASON: Final = 300
_SPECIAL: Final = b"\xff"
"""Before the text of a token that is no text, as llguidance wants it."""


class GrammarConstraint:
    """One generation under a grammar; an `engine.backend.Constraint`.

    `ends` are the tokens that end a text. llguidance knows the first of them alone: where that may come, any may.
    """

    def __init__(self, matcher: Any, tokens: int, ends: list[int]) -> None:
        self._matcher = matcher
        self._mask = TokenMask(tokens)
        self._ends = ends

    def apply(self, row: Row) -> None:
        """Forbid what cannot come next. Raises InvalidRequestError where the grammar has become too complex."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.address, self._mask.size)
        self._check()
        if self._mask.allows(self._ends[0]):
            for end in self._ends[1:]:
                self._mask.allow(end)
        self._mask.apply(row)

    def accept(self, token: int) -> None:
        """Go on behind a token that was allowed."""
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise uncompilable(reason_of(self._matcher.get_error()))


class GrammarVocabulary(Protocol):
    """What llguidance has to know of a model; `Model` documents it."""

    llama: Llama
    tokens: int

    @property
    def vocabulary_address(self) -> int: ...

    def token_text(self, token: int) -> tuple[bytes, bool]: ...

    def end_tokens(self) -> list[int]: ...


class ConstraintCompiler:
    """Makes constraints for one model; may be called from any thread."""

    def __init__(self, model: GrammarVocabulary) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        """Matchers at their beginning, by grammar, the one used last at the end: programs repeat them."""
        self._ends: list[int] = []

    def compile(self, grammar: str) -> GrammarConstraint:
        """Return a constraint to a grammar of `worker.output.grammar`.

        Takes some milliseconds, none for one that was compiled before, and up to a second for a model's first. Raises
        InvalidRequestError with the compiler's words where it is none, and where this machine cannot run the library.
        """
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError as exc:
            raise InvalidRequestError(
                f"field conversation.format: constrained output does not run on this machine ({exc})",
                field="conversation.format",
                rule="left out",
            ) from exc
        with self._lock:
            if (matcher := self._compiled.get(grammar)) is not None:
                self._compiled.move_to_end(grammar)
        if matcher is None:
            limits = LLParserLimits(initial_lexer_fuel=MAX_EXPRESSIONS)
            matcher = LLMatcher(self._known_tokens(), translated(grammar), log_level=0, limits=limits)
            if matcher.is_error():
                raise uncompilable(why_no_schema(grammar) or reason_of(matcher.get_error()))
            self._check_beginning(matcher)
            with self._lock:
                self._compiled[grammar] = matcher
                if len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
        return GrammarConstraint(matcher.deep_copy(), self._model.tokens, self._ends)

    def _check_beginning(self, matcher: Any) -> None:
        """Raise InvalidRequestError where no token may begin the text, as under a schema that refers to itself.

        So it is where finding that out takes so long that the engine must not do it for each token.
        """
        mask, started = TokenMask(self._model.tokens), time.thread_time()
        for why in ("no text fits it", _TOO_COMPLEX):  # what is too complex fails at the second look
            beginning = matcher.deep_copy()
            beginning.unsafe_compute_mask_ptr(mask.address, mask.size)
            if beginning.is_error():
                raise uncompilable(f"{why} ({reason_of(beginning.get_error())})")
        if time.thread_time() - started > MASK_SECONDS:
            raise uncompilable(_TOO_COMPLEX)

    def _known_tokens(self) -> Any:
        import llguidance

        with self._lock:
            if self._tokenizer is None:
                model = self._model
                if not (ends := model.end_tokens()):
                    raise uncompilable("this model has no token that ends a text")
                self._ends = ends
                texts = [
                    _SPECIAL + text if is_control else text
                    for text, is_control in (model.token_text(token) for token in range(model.tokens))
                ]
                make: Any = llguidance.LLTokenizer  # its stub does not know how it is made of a vocabulary of llama.cpp
                self._tokenizer = make.from_llamacpp(
                    tokens=texts,
                    vocab_ptr=model.vocabulary_address,
                    tokenize_fptr=ctypes.cast(model.llama.libllama.llama_tokenize, ctypes.c_void_p).value,
                    eos_token=self._ends[0],
                )
        return self._tokenizer


def translated(grammar: str) -> str:
    """Return a grammar in which nothing is left of llama.cpp's form. Raises InvalidRequestError."""
    if not grammar.startswith("{"):
        return grammar
    from llguidance.gbnf_to_lark import gbnf_to_lark

    whole = json.loads(grammar)
    for each in whole["grammars"]:
        if (text := each.pop(GBNF, None)) is not None:
            try:
                each[LARK] = gbnf_to_lark(text)
            except Exception as exc:  # its own are all plain Exceptions
                raise uncompilable(reason_of(str(exc))) from exc
    return json.dumps(whole)


def why_no_schema(grammar: str) -> str | None:
    """Return what is wrong with the first schema of a grammar that cannot be compiled, and where in it."""
    texts = [each.get(LARK, "") for each in json.loads(grammar)["grammars"]] if grammar.startswith("{") else [grammar]
    for line in "\n".join(texts).splitlines():
        _, _, found = line.partition(": %json ")
        if found and (reason := _why_not(schema := json.loads(found))):
            return f"{reason_of(reason)}, at {printable(place_of(schema, _why_not))[:_MAX_REASON]} in the schema"
    return None


def _why_not(schema: Any) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema))))


def reason_of(words: str) -> str:
    """Return the first line of what the library says, which may quote the grammar."""
    text = words.strip().splitlines()
    return printable(text[0][:_MAX_REASON]) if text else "no reason"
