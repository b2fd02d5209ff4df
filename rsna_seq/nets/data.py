"""Torch datasets over the pixel cache: slabs with their neighbours, and whole studies.

:class:`SlabDataset` reads a whole batch of indices at once, so that a training step is one gather from a
memory map. Where a GPU computes, threads read batches ahead (:func:`read_ahead`): copying from a memory map
needs no interpreter, so threads do what worker processes would do, without starting them in every epoch and
without shared memory.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.volume import Volume
from rsna_seq.nets.augment import Draws
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.study_labels import coded_labels

Item = TypeVar("Item")
Read = TypeVar("Read")
Batch = tuple[Tensor, Tensor, Draws]
"""(n, slice, y, x) HU, (n, 6) labels, and the augmentation parameters of each sample."""
_MAX_THREADS = 8
"""More threads do not read faster, and each holds a batch."""


class SlabDataset(Dataset[tuple[Tensor, Tensor]]):
    """Slabs with their neighbours, read from the cache.

    An item is (2 * neighbours + 1, y, x) int16 HU with the centre slab in the middle, and (6,) labels, below
    0 where they are not known (:mod:`rsna_seq.store.study_labels`).

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
        self.labels = coded_labels(slabs, cache.study_labels)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labelled(self) -> NDArray[np.intp]:
        """Indices of the slabs with a label of their own in some class."""
        return np.flatnonzero((self.labels >= 0).any(1))

    @property
    def is_partial(self) -> bool:
        """Whether a label is unknown, or known of the study only."""
        return bool((self.labels < 0).any())

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        hu, labels = self.__getitems__([index])
        return hu[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read a batch: (n, slice, y, x) int16 HU and (n, 6) labels."""
        return self.batch(indices)

    def batch(self, indices: Sequence[int], *, pin: bool = False) -> tuple[Tensor, Tensor]:
        """Read a batch: (n, slice, y, x) int16 HU and (n, 6) labels.

        Args:
            indices: Slabs to read.
            pin: Read into page-locked memory, from which a GPU copies without waiting of the host.
        """
        at = np.asarray(indices)
        size = self.cache.shard(int(self.shard[at[0]])).shape[1:]
        hu = torch.empty((len(at), self.rows.shape[1], *size), dtype=torch.int16, pin_memory=pin)
        for one, index in zip(hu.numpy(), at, strict=True):
            one[:] = self.cache.shard(int(self.shard[index]))[self.rows[index]]
        labels = torch.from_numpy(self.labels[at])
        return hu, labels.pin_memory() if pin else labels


class StudyDataset(Dataset[tuple[Tensor, Tensor]]):
    """Whole studies: (slab, y, x) int16 HU and (slab, 6) labels, ordered from the lowest slab.

    Args:
        cache: An open cache.
    """

    def __init__(self, cache: PixelCache) -> None:
        self.cache = cache
        self.labels = {
            str(study): torch.from_numpy(coded_labels(rows, cache.study_labels))
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
        workers: Threads that read ahead, at most eight; 0 reads each batch when it is asked for.
        pin: Put batches into page-locked memory, for a GPU.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(dataset))
    return read_ahead(partial(dataset.batch, pin=pin), slab_batches(order, batch), workers)


def read_studies(cache: PixelCache, studies: Iterable[str], device: torch.device) -> Iterator[Volume]:
    """Read studies in order; for a GPU, two threads read ahead into page-locked memory.

    Args:
        cache: An open cache.
        studies: StudyInstanceUIDs.
        device: Device for which they are read.
    """
    if device.type != "cuda":
        return map(cache.read, studies)

    def read(study: str) -> Volume:
        volume = cache.read(study)
        hu = torch.empty(volume.hu.shape, dtype=torch.int16, pin_memory=True).numpy()
        hu[:] = volume.hu
        return replace(volume, hu=hu)

    return read_ahead(read, studies, threads=2)


def read_ahead(read: Callable[[Item], Read], items: Iterable[Item], threads: int) -> Iterator[Read]:
    """Read items in threads ahead of the consumer, and yield the results in order.

    Args:
        read: Function that reads an item; an error is raised where its result would be yielded.
        items: Items in order.
        threads: Number of threads, at most eight; as many items are read ahead. 0 reads in the caller's
            thread.
    """
    if threads < 1:
        yield from map(read, items)
        return
    threads = min(threads, _MAX_THREADS)
    waiting: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(threads, "read-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches_of(n: int, batch: int) -> int:
    """Return the number of batches that :func:`shuffled_batches` makes of ``n`` samples."""
    return len(slab_batches(np.arange(n), batch))


def split_batch(batch: Batch, pieces: int) -> list[tuple[Batch, float]]:
    """Split a batch into pieces of at least two slices (batch norm needs two), each with its share."""
    hu, labels, draws = batch
    size = max(2, -(-len(hu) // pieces))
    starts = range(0, max(1, len(hu) - 1), size)
    ends = [*starts[1:], len(hu)]
    cuts = [slice(a, b) for a, b in zip(starts, ends, strict=True)]
    return [((hu[c], labels[c], draws.part(c)), (c.stop - c.start) / len(hu)) for c in cuts]


def slab_batches(order: NDArray[np.integer], batch: int) -> list[list[int]]:
    """Cut indices into batches; the last has at least two, because batch norm cannot be trained on one."""
    chunks = [order[i : i + batch].tolist() for i in range(0, len(order), batch)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2] += chunks.pop()
    return chunks


def _neighbour_rows(slabs: pl.DataFrame, neighbours: int, spacing_mm: float) -> NDArray[np.int64]:
    """Return the shard rows of each slab and its neighbours, (slab, 2 * neighbours + 1)."""
    rows = []
    for _, study in slabs.group_by("study", maintain_order=True):
        inside = neighbour_indices(study["z_mm"].to_numpy(), neighbours, spacing_mm)
        rows.append(study["row"].to_numpy()[inside])
    return np.concatenate(rows) if rows else np.empty((0, 2 * neighbours + 1), dtype=np.int64)
