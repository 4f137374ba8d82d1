"""The training data: stories as rows of token ids."""

from collections.abc import Iterator
from random import Random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from stories import write_story
from tokenizer import BEGIN_ID, END_ID
from tokenizers import Tokenizer

Rows: TypeAlias = NDArray[np.int64]

BATCH_OF_TEXTS = 1000


def write_stories(random: Random, count: int) -> list[str]:
    """Write `count` stories."""
    return [write_story(random) for _ in range(count)]


def encode_stories(tokenizer: Tokenizer, random: Random) -> Iterator[list[int]]:
    """Yield stories without end, each as the ids of its beginning, its text and its end."""
    while True:
        for encoded in tokenizer.encode_batch(write_stories(random, BATCH_OF_TEXTS)):
            yield [BEGIN_ID, *encoded.ids, END_ID]


def pack_rows(stories: Iterator[list[int]], rows: int, length: int) -> Rows:
    """Return (rows, length + 1) ids, each row full of whole stories but for the last, which is cut.

    Every row begins with a story, because that is where the engine begins too. What is cut off is
    thrown away: there is always another story.
    """
    packed = np.empty((rows, length + 1), dtype=np.int64)
    for row in packed:
        filled = 0
        while filled < len(row):
            story = next(stories)[: len(row) - filled]
            row[filled : filled + len(story)] = story
            filled += len(story)
    return packed
