"""Keeps what users write from being read as control tokens (PURE).

A template puts texts of users between control tokens of its own, and a tokenizer cannot tell the two apart. So MARK
cuts in two what looks like a control token in a text before it is rendered; afterwards the tokens that are whole are
the template's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rbee.worker.engine.backend import Vocabulary
    from rbee.worker.output.control_tokens import ControlTokens

MARK: Final = "\ue000"
"""A character for private use, which no template writes; it is removed from what users write."""


END: Final = "\ue001"
"""Put where the last text of a user ends, and removed from what is rendered: a second such character."""


class ControlMarks:
    """Cuts the control tokens of a vocabulary in two where a user writes them."""

    def __init__(self, controls: ControlTokens) -> None:
        # Behind one letter the mark stands after it: there is nothing to cut.
        self._pattern: Final = re.compile(f"{controls.pattern}(?!{MARK})")
        self._split: Final = re.compile(f"({controls.pattern}(?!{MARK}))")

    def occur_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def marked(self, text: str) -> str:
        """Return a text in which each control token is cut in two by MARK.

        END may stand at its end. Within it would hide a control token, until it is removed.
        """
        if END in text:
            kept = text.rstrip()
            space = text[len(kept) :]
            return self.marked(kept.replace(END, "")) + (END if kept.endswith(END) else "") + space
        text = text.replace(MARK, "")
        found = self._pattern.search(text)
        if found is None:
            return text
        pieces, start = [], 0
        while found is not None:
            # Behind its first letter, and going on from there: another one may begin inside it.
            pieces += [text[start : found.start() + 1], MARK]
            start = found.start() + 1
            found = self._pattern.search(text, start)
        return "".join([*pieces, text[start:]])

    def all_marked(self, value: Any) -> Any:
        """Return a value of JSON in which every text is marked, names of fields too."""
        if isinstance(value, str):
            return self.marked(value)
        if isinstance(value, dict):
            return {self.marked(str(key)): self.all_marked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.all_marked(item) for item in value]
        return value

    def tokens(self, vocabulary: Vocabulary, text: str) -> list[int]:
        """Return the tokens of what a template has rendered from marked texts, after one begin token at most.

        Some minutes for a text of a million tokens, with some models.
        """
        text, begin = _one_begin(vocabulary, text)
        if MARK not in text:
            return vocabulary.tokenize(text, begin=begin, control=True)
        tokens: list[int] = vocabulary.tokenize("", begin=begin)
        run = ""
        # Control tokens stand at odd places. A text that holds a mark is read apart, and whole: so its tokens are those
        # that it has anywhere else.
        for number, piece in enumerate(self._split.split(text)):
            if number % 2 or MARK not in piece:
                run += piece
                continue
            if run:
                tokens += vocabulary.tokenize(run, begin=False, control=True)
                run = ""
            tokens += vocabulary.tokenize(piece.replace(MARK, ""), begin=False)
        if run:
            tokens += vocabulary.tokenize(run, begin=False, control=True)
        return tokens


def without_marks(text: str) -> str:
    return text.replace(MARK, "").replace(END, "")


def _one_begin(vocabulary: Vocabulary, text: str) -> tuple[str, bool]:
    """Return a text with one begin token at most, and whether the tokenizer is to add one.

    Templates write it themselves, some of them twice, and for every message.
    """
    begin = vocabulary.begin_text
    if not begin or not text.startswith(begin):
        return text, True
    while text.startswith(begin, len(begin)):
        text = text[len(begin) :]
    return text, False
