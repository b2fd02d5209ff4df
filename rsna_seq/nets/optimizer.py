"""AdamW for one network, or for stacked networks with a step count each; learning-rate schedule."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsna_seq.config import FitConfig

_BETAS, _EPS = (0.9, 0.999), 1e-8
"""Defaults of ``torch.optim.AdamW``."""
_EMA_POWER = 2 / 3
"""Warm-up of the moving average, as in ``timm.utils.ModelEmaV3``."""


def parameter_groups(net: nn.Module, cfg: FitConfig, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group parameters: weight decay for matrices and filters, none for biases, norms and scalars.

    Args:
        net: The network.
        cfg: Learning rate and weight decay.
        rates: Factors on the learning rate, by the first part of a parameter's name; each has its own pair of
            groups.
    """
    tensors: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            tensors.setdefault(rates.get(name.split(".")[0], 1.0), []).append(parameter)
    return [
        {"params": [p for p in params if (p.ndim > 1) == wide], "weight_decay": decay, "lr": cfg.lr * rate}
        for rate, params in tensors.items()
        for wide, decay in ((True, cfg.weight_decay), (False, 0.0))
    ]


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Compute the learning-rate factor: linear warm-up, then cosine decay to zero.

    Args:
        step: Number of updates so far.
        steps: Number of updates of the whole training.
        warmup: Share of the updates with linear warm-up.
    """
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


class StackedAdamW:
    """AdamW, gradient clipping, schedule and moving average of networks whose weights are stacked.

    The same as ``torch.optim.AdamW``, ``clip_grad_norm_``, :func:`warmup_cosine` and ``ModelEmaV3`` of each
    network alone. A step may leave networks out: their weights, moments and step counts do not change.

    Source: Loshchilov & Hutter 2019, decoupled weight decay.

    Args:
        cfg: Learning rate, schedule, clipping, averaging.
        weights: Weights by name, with a leading network axis.
        updates: Number of updates of each network's whole training.
    """

    def __init__(self, cfg: FitConfig, weights: dict[str, Tensor], updates: list[int]) -> None:
        self.cfg, self.weights, self.updates = cfg, weights, updates
        self.first = {k: torch.zeros_like(w) for k, w in weights.items()}
        self.second = {k: torch.zeros_like(w) for k, w in weights.items()}
        self.average = {k: w.detach().clone() for k, w in weights.items()} if cfg.ema_decay else {}
        self.taken = [0] * len(updates)

    @property
    def kept(self) -> dict[str, Tensor]:
        """Weights that are scored and saved: the moving averages if there are any."""
        return self.average or {k: w.detach() for k, w in self.weights.items()}

    def step(self, gradients: dict[str, Tensor], on: list[bool]) -> list[bool]:
        """Update the networks of which ``on`` is true and whose gradient is finite.

        Args:
            gradients: Gradients by name; a weight without one is not used by the networks.
            on: Which networks take the step.

        Returns:
            Which networks took it.
        """
        norm = torch.stack([g.square().flatten(1).sum(1) for g in gradients.values()]).sum(0).sqrt()
        mask = torch.tensor(on) & norm.isfinite()
        took: list[bool] = mask.tolist()
        if not all(took):  # a gradient that is NaN must not reach the moments
            gradients = {k: torch.where(_column(mask, g) > 0, g, 0.0) for k, g in gradients.items()}
            norm = torch.where(mask, norm, 0.0)
        if self.cfg.max_grad_norm:
            factor = (self.cfg.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            gradients = {k: g * _column(factor, g) for k, g in gradients.items()}
        lr = [self.cfg.lr * warmup_cosine(t, n, self.cfg.warmup) for t, n in self._counts()]
        self.taken = [t + active for t, active in zip(self.taken, took, strict=True)]
        self._adamw(gradients, torch.tensor(lr) * mask, mask)
        if self.average:
            self._track(mask)
        return took

    def _counts(self) -> list[tuple[int, int]]:
        return list(zip(self.taken, self.updates, strict=True))

    @torch.no_grad()
    def _adamw(self, gradients: dict[str, Tensor], lr: Tensor, mask: Tensor) -> None:
        taken = torch.tensor(self.taken, dtype=torch.float64).clamp(min=1)
        size = lr / (1 - _BETAS[0] ** taken).to(lr)
        root = (1 - _BETAS[1] ** taken).sqrt().to(lr)
        for name, g in gradients.items():
            w, mean, square = self.weights[name], self.first[name], self.second[name]
            mean.lerp_(g, _column((1 - _BETAS[0]) * mask, g))
            square.lerp_(g.square(), _column((1 - _BETAS[1]) * mask, g))
            if w.ndim > 2:  # the network axis and a matrix
                w.mul_(_column(1 - lr * self.cfg.weight_decay, g))
            w.sub_(_column(size, g) * mean / (square.sqrt() / _column(root, g)).add_(_EPS))

    @torch.no_grad()
    def _track(self, mask: Tensor) -> None:
        """Update the moving average; its decay rises to ``cfg.ema_decay``."""
        steps = [max(0, t - 1) for t in self.taken]
        decay = [min(self.cfg.ema_decay, 1 - (1 + t) ** -_EMA_POWER) for t in steps]
        share = (1 - torch.tensor(decay, device=mask.device)) * mask
        for name, w in self.weights.items():
            self.average[name].lerp_(w, _column(share, w))

    def tensors(self) -> dict[str, Tensor]:
        """All weights, moments and averages, by a name of their own."""
        parts = {
            "weights": self.weights,
            "first": self.first,
            "second": self.second,
            "average": self.average,
        }
        return {f"{part}.{k}": t.detach() for part, named in parts.items() for k, t in named.items()}


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(network,) values, broadcast over stacked weights."""
    return values.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
