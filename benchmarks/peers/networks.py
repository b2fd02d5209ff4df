"""Training of the peers that are networks, with the data and the budget of the package's own model.

Common to all three: epochs, batch size, weight decay, gradient clipping, augmentation and the number of
averaged networks are those of ``sequence`` in the config; AdamW with linear warm-up and cosine decay; the
output bias is initialised to the log odds of the training slices. Each tries the same four settings: vectors
and logits or logits alone, at the learning rate of ``sequence`` or a third of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from peers.base import Floats, Scorer, logit
from rsna_seq.config import SequenceConfig
from rsna_seq.labels import N_CLASSES
from rsna_seq.nets.cnn import weighted_bce
from rsna_seq.nets.loop import resolve_device
from rsna_seq.nets.studies import EmbeddedStudy, Studies, augment_study, collate, length_batches, to_device

LOGIT_SCALE = 4.0
"""Divisor of the input logits, which brings them to the scale of normalised vectors."""


class NetworkSetting(NamedTuple):
    """Inputs and learning rate of the network."""

    vectors: bool
    lr_share: float
    """Factor of the learning rate of ``sequence``."""


class Inputs(NamedTuple):
    """A padded batch as input of a peer's network."""

    x: Tensor
    """(study, slab, feature): normalised vectors, if used, then the six scaled logits."""
    mask: Tensor
    """(study, slab): True for slabs, False for padding."""
    lengths: Tensor
    """(study,) number of slabs, on the CPU."""


class Network(Protocol):
    """Returns (study, slab, 6) logits; the first are the prediction, others have an auxiliary loss."""

    def __call__(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Score a batch."""


@dataclass(frozen=True)
class NetworkPeer:
    """A peer that is a network.

    Attributes:
        name: Name in tables.
        build: Creates the network for a number of input features.
        settings: Settings to try.
    """

    name: str
    build: Callable[[int], nn.Module]
    settings: tuple[Any, ...] = (
        NetworkSetting(True, 1.0),
        NetworkSetting(True, 1 / 3),
        NetworkSetting(False, 1.0),
        NetworkSetting(False, 1 / 3),
    )

    def fit(
        self, setting: Any, train: list[EmbeddedStudy], budget: SequenceConfig, seed: int, device: str
    ) -> Scorer:
        """Train ``budget.seeds`` networks and average their logits; see :class:`peers.base.Peer`."""
        where = resolve_device(device)
        studies = [_reduced(s, setting) for s in train]
        nets = [
            _train(self.build, studies, setting, budget, seed + number, where)
            for number in range(budget.seeds)
        ]

        def score(study: EmbeddedStudy) -> Floats:
            batch = to_device(collate([_reduced(study, setting)])[0], where)
            with torch.inference_mode():
                answers = torch.stack([net(batch)[0][0].double() for net in nets])
            scored: Floats = answers.mean(0).cpu().numpy()
            return scored

        return score


class Biased(nn.Module):
    """A peer's network on padded batches, with an output bias initialised to the log odds of the classes."""

    def __init__(self, net: nn.Module, odds: Floats) -> None:
        super().__init__()
        self.net = net
        self.bias = nn.Parameter(torch.tensor(odds, dtype=torch.float32))

    def forward(self, studies: Studies) -> tuple[Tensor, ...]:
        """Compute logits (study, slab, 6); values at padded positions are undefined."""
        vectors = studies.vectors
        if vectors.shape[-1]:
            vectors = F.layer_norm(vectors, vectors.shape[-1:])
        x = torch.cat([vectors, studies.logits / LOGIT_SCALE], dim=-1)
        mask = studies.mask
        answers = self.net(Inputs(x * mask[..., None], mask, studies.lengths))
        return tuple(answer + self.bias for answer in answers)


def run_packed(rnn: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Run a recurrent network on packed sequences, without padding; returns (study, slab, state)."""
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states: Tensor = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]
    return states


def _reduced(study: EmbeddedStudy, setting: NetworkSetting) -> EmbeddedStudy:
    if setting.vectors:
        return study
    return replace(study, vectors=np.empty((len(study), 0), dtype=np.float32))


def _train(
    build: Callable[[int], nn.Module],
    studies: list[EmbeddedStudy],
    setting: NetworkSetting,
    budget: SequenceConfig,
    seed: int,
    device: torch.device,
) -> Biased:
    """Train one network; all randomness follows from the seed."""
    torch.manual_seed(seed)
    labels = np.concatenate([s.labels for s in studies])
    odds = logit((labels.sum(axis=0, dtype=np.float64) + 0.5) / (len(labels) + 1))
    net = Biased(build(studies[0].vectors.shape[1] + N_CLASSES), odds).to(device).train()
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=budget.lr * setting.lr_share, weight_decay=budget.weight_decay
    )
    steps = -(-len(studies) // budget.batch_size) * budget.epochs
    rise = max(1, round(budget.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / rise) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    for epoch in range(budget.epochs):
        random = np.random.default_rng([seed, epoch, 1])
        for chosen in length_batches(studies, budget.batch_size, seed=seed, epoch=epoch):
            varied = [
                augment_study(s, random, reverse=budget.reverse, drop=budget.drop_slices) for s in chosen
            ]
            _step(net, varied, budget.max_grad_norm, optimizer, device)
            schedule.step()
    return net.eval()


def _step(
    net: Biased,
    studies: list[EmbeddedStudy],
    clip: float,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    batch, labels = collate(studies)
    mask = to_device(batch, device).mask
    truth = labels.to(device)[mask]
    answers = net(to_device(batch, device))
    optimizer.zero_grad()
    torch.stack([weighted_bce(answer[mask], truth) for answer in answers]).sum().backward()  # type: ignore[no-untyped-call]
    if clip:
        nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
