"""Makes the chain of samplers that chooses a request's next token."""

from __future__ import annotations

import secrets
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from rbee.narrower_errors import NoNumbersError
from rbee.wire.chat.answer import TokenChance, TokenLogprob
from rbee.worker.llama import logits as logits_in_c

if TYPE_CHECKING:
    from rbee.wire.common import Sampling
    from rbee.worker.engine.backend import Constraint
    from rbee.worker.llama.functions import ContextHandle, Functions, SamplerHandle
    from rbee.worker.llama.model import Model

TOP_K: Final = 40
TOP_P: Final = 0.95
MIN_P: Final = 0.05
PENALTY_TOKENS: Final = 64
"""How many of the last tokens the repeat penalty looks at."""
LEAST_TEMPERATURE: Final = 1e-3
LEAST_PENALTY: Final = 1e-2
"""Below these, logits divided by them leave the range of 32-bit floats, and llama.cpp stops the process over NaN."""
LOOK_STEP: Final = 101
"""Of so many logits one is looked at before a request's first token is chosen."""
_MAX_SEED: Final = 2**32 - 2  # the value above it stands for "random" in llama.cpp


def _no_numbers() -> NoNumbersError:
    return NoNumbersError("the model computes no numbers (NaN): its weights are damaged, or were made wrongly")


class SamplerChain:
    """llama.cpp's samplers in their usual order, over the logits of one context; close it.

    Before them come the biases of single tokens and what a constraint forbids; before those the logarithms of the
    probabilities are read, where they are wanted, so that they are the model's own.
    """

    def __init__(
        self,
        functions: Functions,
        context: ContextHandle,
        options: Sampling,
        vocabulary: Model,
        constraint: Constraint | None = None,
    ) -> None:
        """Make the chain; biases are for tokens that the model has."""
        lib = self._lib = functions
        self._context = context
        self._vocabulary = vocabulary
        self._tokens = vocabulary.tokens
        self._has_looked = False
        self._constraint = constraint
        self._bias = {} if options.logit_bias is UNSET else options.logit_bias
        assert all(0 <= token < self._tokens for token in self._bias), "the prompt's reader has checked them"
        self._top = None if options.logprobs is UNSET else options.logprobs
        self.logprob: TokenLogprob | None = None
        self._chain = chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        self._is_open = True

        def add(sampler: SamplerHandle) -> None:
            lib.llama_sampler_chain_add(chain, sampler)

        frequency, presence = options.frequency_penalty or 0.0, options.presence_penalty or 0.0
        has_penalties = bool(frequency or presence)
        if options.repeat_penalty is not None and options.repeat_penalty != 1:
            has_penalties = True
            penalty = max(options.repeat_penalty, LEAST_PENALTY)
            add(lib.llama_sampler_init_penalties(self._tokens, PENALTY_TOKENS, penalty, 0.0, 0.0))
        if frequency or presence:
            add(lib.llama_sampler_init_penalties(self._tokens, vocabulary.trained_length, 1.0, frequency, presence))
        self._is_greedy = not has_penalties and options.temperature < LEAST_TEMPERATURE
        self._chooser: logits_in_c.Chooser | None = None
        if options.temperature < LEAST_TEMPERATURE:
            add(lib.llama_sampler_init_greedy())
            return
        if top_k := TOP_K if options.top_k is None else options.top_k:
            add(lib.llama_sampler_init_top_k(top_k))
            if top_k <= logits_in_c.Chooser.MOST and not has_penalties:
                self._chooser = logits_in_c.Chooser(vocabulary.llama.libllama, chain, top_k)
        if (top_p := TOP_P if options.top_p is None else options.top_p) < 1:
            add(lib.llama_sampler_init_top_p(top_p, 1))
        if min_p := MIN_P if options.min_p is None else options.min_p:
            add(lib.llama_sampler_init_min_p(min_p, 1))
        add(lib.llama_sampler_init_temp(options.temperature))
        add(lib.llama_sampler_init_dist(secrets.randbelow(_MAX_SEED) if options.seed is None else options.seed))

    def sample(self, row: int) -> int:
        # Damaged weights make NaN of all that passes through them. llama.cpp would choose the first token of the
        # vocabulary for it. Looking at all logits would take 12 ms for 150,000.
        logits = self._lib.llama_get_logits_ith(self._context, row)
        if not self._has_looked and not sum(logits[: self._tokens : LOOK_STEP]) < inf:
            raise _no_numbers()
        self._has_looked = True
        norm, top = self._likeliest(logits)
        for token, bias in self._bias.items():
            logits[token] += bias
        if self._constraint is not None:
            self._constraint.apply(logits)
        token = self._choose(logits, row)
        if token < 0 or not isfinite(logits[token]):
            raise _no_numbers()
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._top is not None:
            chosen = logits[token] - self._bias.get(token, 0.0) - norm
            self.logprob = TokenLogprob(chosen=self._chance(token, chosen), top=top)
        return token

    def _choose(self, logits: Any, row: int) -> int:
        """Return what the chain chooses. For each token llama.cpp makes an array of the vocabulary, which takes longer.

        Penalties look at all tokens, so with them there is no other way.
        """
        if self._is_greedy:
            return logits_in_c.likeliest(logits, self._tokens)
        if self._chooser is not None:
            return self._chooser.choose(logits, self._tokens)
        return self._lib.llama_sampler_sample(self._chain, self._context, row)

    def scored(self, row: int, token: int) -> TokenLogprob | None:
        if self._top is None:
            return None
        logits = self._lib.llama_get_logits_ith(self._context, row)
        norm, top = self._likeliest(logits)
        return TokenLogprob(chosen=self._chance(token, logits[token] - norm), top=top)

    def _likeliest(self, logits: Any) -> tuple[float, list[TokenChance]]:
        """Return what is taken from a logit for the logarithm of its probability, and the likeliest tokens."""
        if self._top is None:
            return 0.0, []
        norm = logits_in_c.log_sum_exp(logits, self._tokens)
        found = logits_in_c.highest(logits, self._tokens, self._top)
        return norm, [self._chance(token, logits[token] - norm) for token in found]

    def _chance(self, token: int, logprob: float) -> TokenChance:
        # JSON has no infinity; no probability of a 32-bit float is as small.
        return TokenChance(token=token, data=self._vocabulary.piece(token, control=True), logprob=max(logprob, -9999.0))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._lib.llama_sampler_free(self._chain)
