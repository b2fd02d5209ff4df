"""Torch datasets over the pixel cache: slabs with their neighbours, and whole studies.

:class:`SlabDataset` reads a whole batch of indices at once, so that a training step is one gather from a
memory map.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.labels import CLASSES
from rsna_seq.nets.augment import Draws
from rsna_seq.parallel.local import spawn_context
from rsna_seq.store.pixel_cache import PixelCache

Batch = tuple[Tensor, Tensor, Draws]
"""(n, slice, y, x) HU, (n, 6) labels, and the augmentation parameters of each sample."""


class SlabDataset(Dataset[tuple[Tensor, Tensor]]):
    """Slabs with their neighbours, read from the cache.

    An item is (2 * neighbours + 1, y, x) int16 HU with the centre slab in the middle, and (6,) labels.

    Args:
        cache: An open cache.
        slabs: Rows of ``cache.slabs`` to serve. They must be whole studies, because neighbours are looked up
            within them.
        neighbours: Neighbours on each side.
        spacing_mm: Nominal distance between neighbours, in mm.
    """

    def __init__(self, cache: PixelCache, slabs: pl.DataFrame, neighbours: int, spacing_mm: float) -> None:
        self.cache = cache
        self.shard = slabs["shard"].to_numpy()
        self.rows = _neighbour_rows(slabs, neighbours, spacing_mm)
        self.labels = slabs.select(CLASSES).cast(pl.Float32).to_numpy()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        hu, labels = self.__getitems__([index])
        return hu[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read a batch: (n, slice, y, x) int16 HU and (n, 6) labels."""
        at = np.asarray(indices)
        size = self.cache.shard(int(self.shard[at[0]])).shape[1:]
        hu = np.empty((len(at), self.rows.shape[1], *size), dtype=np.int16)
        for i, index in enumerate(at):
            hu[i] = self.cache.shard(int(self.shard[index]))[self.rows[index]]
        return torch.from_numpy(hu), torch.from_numpy(self.labels[at])


class StudyDataset(Dataset[tuple[Tensor, Tensor]]):
    """Whole studies: (slab, y, x) int16 HU and (slab, 6) labels, ordered from the lowest slab.

    Args:
        cache: An open cache.
    """

    def __init__(self, cache: PixelCache) -> None:
        self.cache = cache
        self.labels = {
            str(study): torch.from_numpy(rows.select(CLASSES).cast(pl.Float32).to_numpy())
            for (study,), rows in cache.slabs.group_by("study", maintain_order=True)
        }

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        study = self.cache.studies[index]
        return torch.from_numpy(self.cache.read(study).hu.copy()), self.labels[study]


def shuffled_batches(
    dataset: SlabDataset, batch: int, *, seed: int, epoch: int, workers: int = 0, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the batches of one epoch, in an order that depends only on seed and epoch.

    Args:
        dataset: Dataset to read.
        batch: Batch size. The last batch may be smaller, but never has a single sample, because batch norm
            cannot be trained on one.
        seed: Seed of the order.
        epoch: Number of the epoch.
        workers: Spawned processes that read ahead; 0 reads in this process.
        pin: Put batches into page-locked memory, for a GPU.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(dataset))
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        dataset,
        batch_sampler=_chunks(order, batch),
        num_workers=workers,
        multiprocessing_context=spawn_context() if workers else None,
        collate_fn=_as_it_is,
        pin_memory=pin,
    )
    return iter(loader)


def batches_of(n: int, batch: int) -> int:
    """Return the number of batches that :func:`shuffled_batches` makes of ``n`` samples."""
    return len(_chunks(np.arange(n), batch))


def split_batch(batch: Batch, pieces: int) -> list[tuple[Batch, float]]:
    """Split a batch into pieces of at least two slices (batch norm needs two), each with its share."""
    hu, labels, draws = batch
    size = max(2, -(-len(hu) // pieces))
    starts = range(0, max(1, len(hu) - 1), size)
    ends = [*starts[1:], len(hu)]
    cuts = [slice(a, b) for a, b in zip(starts, ends, strict=True)]
    return [((hu[c], labels[c], draws.part(c)), (c.stop - c.start) / len(hu)) for c in cuts]


def _chunks(order: NDArray[np.int64], batch: int) -> list[list[int]]:
    chunks = [order[i : i + batch].tolist() for i in range(0, len(order), batch)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2] += chunks.pop()
    return chunks


def _as_it_is(batch: Any) -> Any:
    """Return the batch unchanged: the dataset has already collated it."""
    return batch


def _neighbour_rows(slabs: pl.DataFrame, neighbours: int, spacing_mm: float) -> NDArray[np.int64]:
    """Return the shard rows of each slab and its neighbours, (slab, 2 * neighbours + 1)."""
    rows = []
    for _, study in slabs.group_by("study", maintain_order=True):
        inside = neighbour_indices(study["z_mm"].to_numpy(), neighbours, spacing_mm)
        rows.append(study["row"].to_numpy()[inside])
    return np.concatenate(rows) if rows else np.empty((0, 2 * neighbours + 1), dtype=np.int64)
