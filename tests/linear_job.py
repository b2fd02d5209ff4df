"""A training job of milliseconds: a linear model whose losses and memory a test decides."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsna_seq.nets.loop import Job


def linear_job(factors: Sequence[float] = (), *, steps: int = 8, fits: int = 99) -> Job:
    """Learn the sum of three numbers.

    Args:
        factors: The first losses are multiplied by these.
        steps: Batches per epoch, of 16 samples.
        fits: Number of samples that memory holds; larger batches raise ``OutOfMemoryError``.
    """
    torch.manual_seed(0)
    net, given = nn.Linear(3, 1), iter(factors)
    batches = list(torch.randn(steps, 16, 3))

    def measure(model: nn.Module, batch: Tensor) -> Tensor:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        return next(given, 1.0) * ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean()

    def split(batch: Tensor, pieces: int) -> list[tuple[Tensor, float]]:
        return [(part, len(part) / len(batch)) for part in batch.chunk(pieces)]

    def score(model: nn.Module) -> float:
        return float(model.weight.detach().abs().sum())

    return Job("test", net, steps, lambda _: batches, measure, split, score)
