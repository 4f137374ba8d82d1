"""Sampling: what the trained model says, with the settings rbee uses by default."""

import torch
from model import Llama
from tokenizer import BEGIN_ID, END_ID
from tokenizers import Tokenizer

TEMPERATURE = 0.7


def go_on(model: Llama, tokenizer: Tokenizer, prompt: str, limit: int = 300) -> tuple[str, bool]:
    """Return the prompt with what the model adds, and whether the model ended it by itself.

    Every token is computed from the whole text, without a cache: slow, and simple.
    """
    tokens = [BEGIN_ID, *tokenizer.encode(prompt).ids]
    start = len(tokens)
    while len(tokens) - start < limit:
        with torch.no_grad():
            logits = model(torch.tensor([tokens]))[0, -1]
        chances = torch.softmax(logits / TEMPERATURE, dim=-1)
        token = int(torch.multinomial(chances, 1))
        if token == END_ID:
            return tokenizer.decode(tokens[1:]), True
        tokens.append(token)
    return tokenizer.decode(tokens[1:]), False
