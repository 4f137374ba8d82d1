"""The tokenizer: byte-level BPE with the pre-tokeniser of GPT-2, learned from the stories."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

BEGIN = "<|begin|>"
END = "<|endoftext|>"
BEGIN_ID = 0
END_ID = 1


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer: tokens by id, and merges by rank."""

    tokens: list[str]
    merges: list[str]


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn `size` tokens: the two special ones, all 256 bytes, the rest merges.

    No prefix space is added, because the engine adds none to a prompt.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the stories gave {tokenizer.get_vocab_size()} tokens instead of {size}")
    if (tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)) != (BEGIN_ID, END_ID):
        raise ValueError("the special tokens are not the first two")
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the tokens and merges in the spelling that GGUF uses, which is that of GPT-2."""
    learned = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    return Vocabulary(tokens, [" ".join(pair) for pair in learned["merges"]])
