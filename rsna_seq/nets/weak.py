"""Training with labels of whole studies, and with unknown classes: multiple-instance loss, mixed batches.

1. A label is 0, 1, ONE_OF (some slab of the study has the class) or UNKNOWN
   (:mod:`rsna_seq.store.study_labels`).
2. Known labels: binary cross-entropy of the slab, unknown classes count 0 (:func:`partial_bce`).
3. ONE_OF: the logits of these slabs are pooled to one logit of the study, whose label is 1
   (:func:`study_loss`): the largest logit (Campanella et al., Nature Medicine 2019), or a mean with the
   softmax of the logits as attention (Wang, Li & Metze, ICASSP 2019).
4. A batch of ``embed`` has slabs with known labels first, then slabs of some studies (:class:`MixedBatches`).

Studies without a class need no pooling: all of their slabs are known to be 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from rsna_seq.config import EmbedConfig
from rsna_seq.labels import CLASS_WEIGHTS
from rsna_seq.nets.augment import Draws, draw
from rsna_seq.nets.data import SlabDataset, read_ahead, slab_batches
from rsna_seq.store.study_labels import ONE_OF, UNKNOWN

Pool = Literal["max", "attention"]
_FAR = 1e4
"""Added to logits that are not pooled; finite, so that no gradient is NaN."""


def _weights(logits: Tensor) -> Tensor:
    return torch.tensor(CLASS_WEIGHTS, dtype=logits.dtype).to(logits.device, non_blocking=logits.is_cuda)


def partial_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Weighted cross-entropy of each row, (...,); classes whose label is below 0 count 0.

    Args:
        logits: (..., 6).
        labels: (..., 6) coded labels.
    """
    losses = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0), reduction="none")
    return (losses * (labels >= 0) * _weights(logits)).sum(-1)


def partial_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of :func:`partial_losses` over the rows."""
    return partial_losses(logits, labels).mean()


def pooled(logits: Tensor, inside: Tensor, pool: Pool) -> Tensor:
    """Pool the logits of some slabs of each study.

    Args:
        logits: (study, slab, 6).
        inside: (study, slab, 6) which slabs are pooled.
        pool: How.

    Returns:
        (study, 6); without meaning where no slab is pooled.
    """
    apart = logits - _FAR * ~inside
    if pool == "max":
        return apart.amax(1)
    return (apart.softmax(1) * logits).sum(1)


def study_loss(logits: Tensor, labels: Tensor, pool: Pool) -> Tensor:
    """Weighted cross-entropy of each study, (study,), in the classes that some slab must have.

    Args:
        logits: (study, slab, 6).
        labels: (study, slab, 6) coded labels; padding is UNKNOWN.
        pool: How the logits of a study are pooled.
    """
    inside = labels == ONE_OF
    losses = F.softplus(-pooled(logits, inside, pool))
    return (losses * inside.any(1) * _weights(logits)).sum(-1)


def sequence_loss(logits: Tensor, labels: Tensor, mask: Tensor, pool: Pool, weight: float) -> Tensor:
    """Loss of padded studies: mean over the slabs, in which a study counts as ``weight`` slabs.

    Args:
        logits: (study, slab, 6).
        labels: (study, slab, 6) coded labels.
        mask: (study, slab) True for slabs, False for padding.
        pool: How the logits of a study are pooled.
        weight: Weight of the loss of a study.
    """
    studies = study_loss(logits, labels.masked_fill(~mask[..., None], UNKNOWN), pool)
    return partial_bce(logits[mask], labels[mask]) + weight * studies.sum() / mask.sum()


def padded(rows: Tensor, lengths: Tensor, value: float = 0.0) -> Tensor:
    """Rows of studies one after another to (study, slab, ...)."""
    return pad_sequence(list(rows.split(lengths.tolist())), batch_first=True, padding_value=value)


@dataclass(frozen=True)
class MixedBatch:
    """Slabs with known labels, then slabs of some studies whose labels are of the study.

    Attributes:
        hu: (n, slice, y, x) int16 HU.
        labels: (n, 6) coded labels.
        draws: Augmentation parameters of each slab.
        lengths: (study,) number of slabs of each study, at the end of the batch.
        units: Slabs and studies of the whole batch, by which the loss is divided.
    """

    hu: Tensor
    labels: Tensor
    draws: Draws
    lengths: Tensor
    units: int

    @property
    def single(self) -> int:
        """Number of slabs at the start whose labels are known."""
        return len(self.labels) - int(self.lengths.sum())

    def loss(self, logits: Tensor, pool: Pool, weight: float) -> Tensor:
        """Share of this batch, or part of one, in the loss of the whole batch.

        Args:
            logits: (n, 6).
            pool: How the logits of a study are pooled.
            weight: A study counts as so many slabs.
        """
        n, labels = self.single, self.labels.to(logits.device, non_blocking=True)
        total = partial_losses(logits[:n], labels[:n]).sum()
        if len(self.lengths):
            studies = padded(logits[n:], self.lengths), padded(labels[n:], self.lengths, UNKNOWN)
            total = total + weight * study_loss(*studies, pool).sum()
        return total / self.units

    def part(self, slabs: slice, lengths: Tensor) -> "MixedBatch":
        """Some slabs of the batch, the last of them of studies."""
        part = replace(self, hu=self.hu[slabs], labels=self.labels[slabs], draws=self.draws.part(slabs))
        return replace(part, lengths=lengths)


def split_mixed(batch: MixedBatch, pieces: int) -> list[tuple[MixedBatch, float]]:
    """Split a batch into pieces of at least two slabs; studies stay whole."""
    if pieces == 1:
        return [(batch, 1.0)]
    n, size = batch.single, max(2, -(-len(batch.labels) // pieces))
    starts = [*range(0, max(1, n - 1), size)] if n else []
    cuts = [(slice(a, b), batch.lengths[:0]) for a, b in zip(starts, [*starts[1:], n], strict=True)]
    ends = (batch.lengths.cumsum(0) + n).tolist()
    for k, (start, end) in enumerate(zip([n, *ends], ends, strict=False)):
        cuts.append((slice(start, end), batch.lengths[k : k + 1]))
    return [(batch.part(*cut), 1.0) for cut in cuts]


class MixedBatches:
    """Batches of an epoch with labels of slabs and of studies.

    Each epoch has every slab with a known label once, and every study with ONE_OF once.

    Args:
        data: Slabs of whole studies, with coded labels.
        studies: (slab,) study of each slab of ``data``.
        cfg: Batch size, number of slabs per study, augmentation.
    """

    def __init__(self, data: SlabDataset, studies: NDArray[np.generic], cfg: EmbedConfig) -> None:
        self.data, self.cfg = data, cfg
        weak = np.flatnonzero((data.labels == ONE_OF).any(1))
        _, first = np.unique(studies[weak], return_index=True)
        self.bags = np.split(weak, np.sort(first)[1:]) if len(weak) else []
        self.steps = len(slab_batches(data.labelled, cfg.batch_size)) or len(self.bags)

    def epoch(self, *, seed: int, epoch: int, workers: int, pin: bool) -> Iterator[MixedBatch]:
        """Iterate over the batches of one epoch, in an order that depends only on seed and epoch."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        read = partial(self._read, pin=pin)
        for hu, labels, lengths in read_ahead(read, self._plan(seed, epoch), workers):
            units = len(labels) - int(lengths.sum()) + len(lengths)
            yield MixedBatch(hu, labels, draw(self.cfg, len(hu), generator), lengths, units)

    def _plan(self, seed: int, epoch: int) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Slabs with known labels, and those of each study, of every batch."""
        order = np.random.default_rng([seed, epoch]).permutation(self.data.labelled)
        random = np.random.default_rng([seed, epoch, 3])
        bags = [self._some(self.bags[k], random) for k in random.permutation(len(self.bags))]
        slabs = slab_batches(order, self.cfg.batch_size) or [[] for _ in bags]
        for step, indices in enumerate(slabs):
            yield indices, bags[step :: self.steps]

    def _some(self, members: NDArray[np.intp], random: np.random.Generator) -> list[int]:
        """At most ``study_slices`` slabs of a study, evenly spaced from a random start."""
        count = min(len(members), self.cfg.study_slices)
        at = ((np.arange(count) + random.random()) * len(members) / count).astype(int)
        chosen: list[int] = members[np.minimum(at, len(members) - 1)].tolist()
        return chosen

    def _read(self, item: tuple[list[int], list[list[int]]], *, pin: bool) -> tuple[Tensor, Tensor, Tensor]:
        indices, bags = item
        hu, labels = self.data.batch([*indices, *(i for bag in bags for i in bag)], pin=pin)
        return hu, labels, torch.tensor([len(bag) for bag in bags], dtype=torch.int64)
