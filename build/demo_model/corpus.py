"""The training data: stories as batches of token ids."""

from collections.abc import Iterator
from random import Random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from stories import write_story
from tokenizer import BEGIN_ID, END_ID
from tokenizers import Tokenizer

Rows: TypeAlias = NDArray[np.int64]

POOL = 1000
NOTHING = -1


def write_stories(random: Random, count: int) -> list[str]:
    """Write `count` stories."""
    return [write_story(random) for _ in range(count)]


def encode_stories(tokenizer: Tokenizer, random: Random) -> list[list[int]]:
    """Write a pool of stories, each as the ids of its beginning, its text and its end."""
    encoded = tokenizer.encode_batch(write_stories(random, POOL))
    return [[BEGIN_ID, *story.ids, END_ID] for story in encoded]


def pad(stories: list[list[int]]) -> Rows:
    """Return one row for each story, filled up with NOTHING to the length of the longest."""
    rows = np.full((len(stories), max(map(len, stories))), NOTHING, dtype=np.int64)
    for row, story in zip(rows, stories, strict=True):
        row[: len(story)] = story
    return rows


def batch_alone(stories: list[list[int]], tokens: int) -> Iterator[Rows]:
    """Yield batches of at most `tokens` ids, with a row for each story, shortest stories first.

    Alone in its row, a story can only repeat its own names. Among others, it took the model much
    longer to learn that the hero of a story stays the same. Sorting keeps the padding small.
    """
    batch: list[list[int]] = []
    for story in sorted(stories, key=len):
        if batch and (len(batch) + 1) * len(story) > tokens:
            yield pad(batch)
            batch = []
        batch.append(story)
    yield pad(batch)


def batch_packed(stories: list[list[int]], tokens: int, length: int) -> Iterator[Rows]:
    """Yield batches of `tokens` ids in rows of `length`, which hold one story after another.

    They teach the positions that no single story reaches. What does not fill a batch is left out.
    """
    flow = np.array([token for story in stories for token in story], dtype=np.int64)
    count = len(flow) // tokens
    yield from flow[: count * tokens].reshape(count, tokens // length, length)


def batches(tokenizer: Tokenizer, random: Random, tokens: int, length: int) -> Iterator[Rows]:
    """Yield batches without end: from each pool, a tenth of the stories packed, the others alone."""
    while True:
        stories = encode_stories(tokenizer, random)
        packed = POOL // 10
        pool = [*batch_alone(stories[packed:], tokens)]
        pool += batch_packed(stories[:packed], tokens, length)
        random.shuffle(pool)
        yield from pool
