"""Batches of several sequence networks that are trained as one: one batch per network, padded to one size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsna_seq.config import SequenceConfig
from rsna_seq.nets.sequence_model import Drops, draw_drops
from rsna_seq.nets.studies import EmbeddedStudy, Studies, augment_study, collate, length_batches


@dataclass(frozen=True)
class Training:
    """One network to train.

    Attributes:
        name: Name in messages.
        seed: Seed of everything random.
        train: Labelled studies, each in one CNN's space.
        unseen: Studies to report a validation metric on; they choose nothing.
        folder: Receives the weights.
    """

    name: str
    seed: int
    train: list[EmbeddedStudy]
    unseen: list[EmbeddedStudy]
    folder: Path

    def without_vectors(self) -> "Training":
        """Return the same training without the vectors, which are then neither read nor copied."""
        train, unseen = (
            [replace(s, vectors=np.empty((len(s), 0), dtype=np.float32)) for s in studies]
            for studies in (self.train, self.unseen)
        )
        return replace(self, train=train, unseen=unseen)


class Batch(NamedTuple):
    """One batch of each network, padded; a study that is only padding has one slab, of weight 0."""

    studies: Studies
    """(network, study, slab, ...)."""
    labels: Tensor
    """(network, study, slab, 6)."""
    weight: Tensor
    """(network, study, slab): 1 / (slabs of the network's batch) for slabs, 0 for padding."""
    drops: Drops | None
    """Dropout, each with a leading network axis; None in evaluation."""


Own = tuple[Studies, Tensor, Drops | None]
"""The batch of one network: studies, labels (study, slab, 6), and dropout while training."""


def batches_of(cfg: SequenceConfig, training: Training, epoch: int) -> Iterator[Own]:
    """Iterate over the batches of one network in one epoch; all randomness follows from its seed.

    Args:
        cfg: Batch size, augmentation, dropout.
        training: The network.
        epoch: Number of the epoch.

    Yields:
        Studies, labels and dropout.
    """
    random = np.random.default_rng([training.seed, epoch, 1])
    seed = np.random.SeedSequence([training.seed, epoch, 2]).generate_state(1, np.uint64)
    drop = torch.Generator().manual_seed(int(seed[0]))
    for chosen in length_batches(training.train, cfg.batch_size, seed=training.seed, epoch=epoch):
        varied = [augment_study(s, random, reverse=cfg.reverse, drop=cfg.drop_slices) for s in chosen]
        studies, labels = collate(varied)
        count, slabs, features = studies.vectors.shape
        yield studies, labels, draw_drops(cfg, features, count, slabs, drop)


def joined(own: list[Own | None]) -> Batch:
    """Pad the batches of all networks to one size.

    Args:
        own: One batch per network; None if the network has none.
    """
    real = [b for b in own if b is not None]
    count, slabs = (max(b[1].shape[axis] for b in real) for axis in (0, 1))

    def stack(tensors: list[Tensor | None], *, axis: int = 0) -> Tensor:
        """Stack tensors whose study axis is ``axis``, followed by the slab axis."""
        like = next(t for t in tensors if t is not None)
        shape = (len(tensors), *like.shape[:axis], count, slabs, *like.shape[axis + 2 :])
        stacked = like.new_zeros(shape)
        for n, t in enumerate(tensors):
            if t is not None:
                stacked[n][tuple(slice(size) for size in t.shape)] = t
        return stacked

    lengths = torch.ones(len(own), count, dtype=torch.int64)
    weight = torch.zeros(len(own), count, slabs)
    for n, b in enumerate(own):
        if b is not None:
            lengths[n, : len(b[1])] = b[0].lengths
            weight[n, : len(b[1]), : b[1].shape[1]] = b[0].mask / b[0].lengths.sum()
    vectors, logits, z_mm = (stack([b and b[0][i] for b in own]) for i in range(3))
    studies = Studies(vectors, logits, z_mm, lengths)
    drops = None
    if real[0][2] is not None:
        of = [b and b[2] for b in own]
        drops = Drops(*(stack([d and d[i] for d in of], axis=int(i == 2)) for i in range(len(Drops._fields))))
    return Batch(studies, stack([b and b[1] for b in own]), weight, drops)
