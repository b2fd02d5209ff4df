"""The training job of ``embed``: batches and loss, with or without labels of whole studies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.augment import augment, draw
from rsna_seq.nets.cnn import weighted_bce
from rsna_seq.nets.data import Batch, SlabDataset, batches_of, shuffled_batches, split_batch
from rsna_seq.nets.loop import Job, device_of
from rsna_seq.nets.weak import MixedBatch, MixedBatches, split_mixed


@dataclass(frozen=True)
class EmbedTraining:
    """What one network is trained on.

    Attributes:
        name: Title of the progress bar.
        data: Slabs of whole studies.
        studies: (slab,) study of each.
        cfg: Network and training.
        seed: Seed of order and augmentation.
        device: Where it is trained.
        workers: Threads that read ahead where there is a GPU.
    """

    name: str
    data: SlabDataset
    studies: NDArray[np.generic]
    cfg: EmbedConfig
    seed: int
    device: torch.device
    workers: int

    def job(self, net: nn.Module, score: Callable[[nn.Module], float]) -> Job:
        """The training job of a network.

        Args:
            net: The network, (n, slice, y, x) to vectors and logits.
            score: Validation metric.
        """
        gpu = self.device.type == "cuda"
        workers = self.workers if gpu else 0
        if self.data.is_partial:
            return self._partly_labelled(net, score, workers, pin=gpu)
        return self._labelled(net, score, workers, pin=gpu)

    def _labelled(
        self, net: nn.Module, score: Callable[[nn.Module], float], workers: int, *, pin: bool
    ) -> Job:
        """All slabs have six labels."""
        data, cfg, seed = self.data, self.cfg, self.seed

        def batches(epoch: int) -> Iterator[Batch]:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            for hu, labels in shuffled_batches(
                data, cfg.batch_size, seed=seed, epoch=epoch, workers=workers, pin=pin
            ):
                yield hu, labels, draw(cfg, len(hu), generator)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            hu, labels, draws = batch
            at = device_of(model)
            hu = augment(hu.to(at, non_blocking=True).float(), draws.to(at))
            return weighted_bce(model(hu)[1], labels.to(at, non_blocking=True))

        return Job(self.name, net, batches_of(len(data), cfg.batch_size), batches, loss, split_batch, score)

    def _partly_labelled(
        self, net: nn.Module, score: Callable[[nn.Module], float], workers: int, *, pin: bool
    ) -> Job:
        """Some labels are unknown, or known of the study only."""
        cfg, mixed = self.cfg, MixedBatches(self.data, self.studies, self.cfg)

        def batches(epoch: int) -> Iterator[MixedBatch]:
            return mixed.epoch(seed=self.seed, epoch=epoch, workers=workers, pin=pin)

        def loss(model: nn.Module, batch: MixedBatch) -> Tensor:
            at = device_of(model)
            hu = augment(batch.hu.to(at, non_blocking=True).float(), batch.draws.to(at))
            return batch.loss(model(hu)[1], cfg.study_pool, cfg.study_loss)

        return Job(self.name, net, mixed.steps, batches, loss, split_mixed, score)
