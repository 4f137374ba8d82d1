"""The training loop: from random weights to a model of the stories."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from corpus import NOTHING, Rows
from model import Llama
from torch import Tensor
from torch.nn import functional

THREADS = 2
REPORT_EVERY = 50


@dataclass(frozen=True)
class Plan:
    """How long and how hard to train.

    The length is a number of steps and not a time, so that the same seed gives the same model.
    """

    steps: int = 1000
    warm_up: int = 50
    tokens_per_step: int = 2048
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    held_out_batches: int = 60


@dataclass(frozen=True)
class Outcome:
    """What a training run measured; losses are nats per token."""

    tokens: int
    seconds: float
    training_loss: float
    held_out_loss: float


def loss_of(model: Llama, rows: Tensor) -> Tensor:
    """Return the mean cross-entropy of each next token.

    bfloat16 is half as fast again as float32 here; the weights themselves stay float32.
    """
    known, next_ones = rows[:, :-1].clamp(min=0), rows[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(known)
    return functional.cross_entropy(logits.flatten(0, 1).float(), next_ones.flatten(), ignore_index=NOTHING)


def held_out_loss(model: Llama, batches: list[Rows]) -> float:
    """Return the loss on stories that training never sees."""
    with torch.no_grad():
        losses = [loss_of(model, torch.from_numpy(rows)).item() for rows in batches]
    return sum(losses) / len(losses)


def rate_at(step: int, plan: Plan) -> float:
    """Return the share of the full learning rate: a linear warm-up, then a cosine down to 1 %."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    done = (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizers(model: Llama, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, AdamW for the embedding and the norms.

    Muon reaches the same loss in about half the steps of AdamW, which pays for its cost.
    """
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: Llama, plan: Plan, batches: Iterator[Rows]) -> Outcome:
    """Train `model` in place on `batches`, whose first ones are held out, and report on the way."""
    held_out = [next(batches) for _ in range(plan.held_out_batches)]
    optimizers = make_optimizers(model, plan)
    full_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start, recent, tokens = time.monotonic(), 0.0, 0
    for step in range(plan.steps):
        rows = next(batches)
        tokens += int((rows[:, 1:] != NOTHING).sum())
        loss = loss_of(model, torch.from_numpy(rows))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, full_rate in zip(optimizers, full_rates, strict=True):
            optimizer.param_groups[0]["lr"] = full_rate * rate_at(step, plan)
            optimizer.step()
            optimizer.zero_grad()
        recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
        if (step + 1) % REPORT_EVERY == 0:
            passed = time.monotonic() - start
            speed = tokens / passed
            left = passed / (step + 1) * (plan.steps - step - 1) / 60
            print(
                f"step {step + 1}/{plan.steps}  loss {recent:.4f}  {speed:.0f} tokens/s  {left:.1f} minutes left",
                flush=True,
            )
    seconds = time.monotonic() - start
    return Outcome(tokens, seconds, recent, held_out_loss(model, held_out))
