"""The network: a small Llama in PyTorch, which computes what llama.cpp does for `llama`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of a model; every row is a multiple of 32 values long, which is a block of Q8_0."""

    vocabulary: int = 2048
    context: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 704
    norm_epsilon: float = 1e-5
    rope_base: float = 10000.0

    @property
    def head_width(self) -> int:
        """How many values of the width each head sees."""
        return self.width // self.heads


def rope_angles(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the rotary embedding, each (context, head_width / 2)."""
    pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float64)
    frequencies = shape.rope_base ** (-pairs / shape.head_width)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of neighbours (2i, 2i + 1) by the angle of its position.

    llama.cpp pairs neighbours for this architecture. Hugging Face pairs i with i + half, and its
    converter permutes the weights; training with neighbours needs no such step.
    """
    even, odd = heads[..., 0::2], heads[..., 1::2]
    turned = (even * cosines - odd * sines, even * sines + odd * cosines)
    return torch.stack(turned, dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Mix the positions of x (batch, time, width)."""
        batch, time, width = x.shape
        split = (batch, time, self.shape.heads, self.shape.head_width)
        query = rotate(self.query(x).view(split).transpose(1, 2), cosines, sines)
        key = rotate(self.key(x).view(split).transpose(1, 2), cosines, sines)
        value = self.value(x).view(split).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, time, width))
        return joined


class FeedForward(nn.Module):
    """The gated layer (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of x (batch, time, width) by itself."""
        result: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return result


class Block(nn.Module):
    """One layer: attention, then the feed-forward part, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.feed_forward_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.feed_forward = FeedForward(shape)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Return x (batch, time, width) after this layer."""
        x = x + self.attention(self.attention_norm(x), cosines, sines)
        result: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return result


class Llama(nn.Module):
    """The whole model; the embedding of a token is also its row of the output layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cosines, sines = rope_angles(shape)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, Attention):
            # The residual stream adds two parts per layer; without this it grows with the depth.
            nn.init.normal_(module.output.weight, std=0.02 / (2 * self.shape.layers) ** 0.5)
        if isinstance(module, FeedForward):
            nn.init.normal_(module.down.weight, std=0.02 / (2 * self.shape.layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (batch, time, vocabulary) for tokens (batch, time)."""
        time = tokens.shape[1]
        cosines, sines = self.cosines[:time], self.sines[:time]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cosines, sines)
        return functional.linear(self.norm(x), self.embedding.weight)

    def parameter_count(self) -> int:
        """Return how many numbers were learned."""
        return sum(parameter.numel() for parameter in self.parameters())
