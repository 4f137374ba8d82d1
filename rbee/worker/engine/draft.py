"""Guesses a text's next tokens from what it repeats, and decides when guessing pays (PURE).

A guess costs nothing; computing guessed tokens beside the one that is due costs less for each than computing them one
by one, and those that are wrong are computed in vain. Each token is chosen as ever, from what was computed behind the
ones before it, so the text is the one that would have been written without (prompt lookup decoding; Leviathan et al.,
"Fast Inference from Transformers via Speculative Decoding", 2023, with a draft that is certain of itself).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKBACK: Final = 4
"""Tokens that must have been there before in the same order, for what followed them to be the guess."""
INDEXED: Final = 32_768
"""The newest tokens of a prompt that are looked at; indexing them takes some 20 ms."""
FIRST_RATE: Final = 0.3
"""The share of right guesses that a text is taken to have at first: too low to pay."""
NEWEST: Final = 0.15
"""How much the newest guess counts in that share."""
MIN_GAIN: Final = 1.05
USUAL_COST: Final = 0.5
"""What a guessed token costs beside another one, of what a step costs without: on two processors, which compute as much
as they can. It is less where memory is the limit."""
LEARNING: Final = 0.2
FORGETTING: Final = 0.01
"""How far each step without guesses takes what they were measured to cost back to what is usual: a busy moment must not
end them for good."""
PLAIN_EVERY: Final = 50
"""Of so many steps one is made without guesses, to know what it costs."""


class Drafter:
    """Guesses for one text. `tokens` is the list that grows; `saw` is called once for each new token."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._places: dict[tuple[int, ...], int] = {}
        """What comes after the last tokens, by these: a place in `tokens`."""
        for end in range(max(LOOKBACK, len(tokens) - INDEXED), len(tokens)):
            self._places[tuple(tokens[end - LOOKBACK : end])] = end
        self._next = self._look_up()
        self.rate = FIRST_RATE
        """The share of guesses that were right, the newest counting most."""

    def _look_up(self) -> int | None:
        """Return where the last tokens were followed by something before."""
        last = tuple(self._tokens[-LOOKBACK:])
        found = self._places.get(last)
        self._places[last] = len(self._tokens)
        return found

    def saw(self) -> None:
        """Learn from the token that was added last whether its guess was right, and guess the next."""
        if self._next is not None:
            is_right = self._tokens[self._next] == self._tokens[-1]
            self.rate += NEWEST * (is_right - self.rate)
            if is_right:
                # What goes on as it did before is likelier than what followed the same words elsewhere.
                self._places[tuple(self._tokens[-LOOKBACK:])] = len(self._tokens)
                self._next += 1
                return
        self._next = self._look_up()

    def guess(self, most: int) -> Sequence[int]:
        """Return up to `most` next tokens."""
        return [] if self._next is None else self._tokens[self._next : self._next + most]


class Speculation:
    """Knows what steps take with and without guesses, and so how many pay."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        """Seconds of a step without guesses, by the sequences in it."""
        self._cost = USUAL_COST
        """Of what a step costs without guesses, each guess more."""
        self._steps = 0
        self.guessed = self.right = 0
        """Tokens that were guessed and computed, and those of them that were right."""

    def observe(self, sequences: int, guessed: int, seconds: float) -> None:
        """Learn from a step of one token for each of so many sequences, and `guessed` more."""
        known = self._plain.get(sequences)
        if not guessed:
            self._plain[sequences] = seconds if known is None else known + LEARNING * (seconds - known)
            self._cost += FORGETTING * (USUAL_COST - self._cost)
        elif known:
            self._cost += LEARNING * (max(0.0, seconds / known - 1) / guessed - self._cost)

    def may_guess(self, sequences: int) -> bool:
        """Whether a step of so many sequences may have guesses, and is not the one by which others are measured."""
        self._steps += 1
        return sequences in self._plain and self._steps % PLAIN_EVERY != 0

    def length(self, sequences: int, rate: float, most: int) -> int:
        """Return how many tokens to guess for one of so many sequences, whose guesses are right at this rate."""
        best, best_gain = 0, MIN_GAIN
        expected, chance = 0.0, 1.0
        for count in range(1, most + 1):
            chance *= rate
            expected += chance
            gain = (1 + expected / sequences) / (1 + count * self._cost)
            if gain > best_gain:
                best, best_gain = count, gain
        return best
