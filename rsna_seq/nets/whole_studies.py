"""Batches of whole studies for the joint network, read from the pixel cache.

1. The order of the studies is a pure function of seed and epoch.
2. A batch holds the slabs of its studies one after another, each with its neighbours.
3. Augmentation is drawn per study, so that neighbouring slices stay consistent; the erased rectangle is drawn
   per slice. Where a study is reversed in depth, its slabs are in reverse order and z is negated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.augment import Draws, draw
from rsna_seq.nets.data import SlabDataset
from rsna_seq.store.pixel_cache import PixelCache


@dataclass(frozen=True)
class StudyBatch:
    """Whole studies with their labels and augmentation parameters.

    Attributes:
        hu: (slab, slice, y, x) int16 HU, the slabs of all studies one after another.
        labels: (slab, 6).
        z_mm: (study, slab) positions from the first slab of each study, padded.
        lengths: (study,) number of slabs.
        draws: Augmentation parameters of each slab.
        chunk: Slices that the CNN processes at once, with gradient checkpointing; None processes all.
    """

    hu: Tensor
    labels: Tensor
    z_mm: Tensor
    lengths: Tensor
    draws: Draws
    chunk: int | None = None

    def part(self, studies: slice, chunk: int | None) -> "StudyBatch":
        """Return a range of the studies, to be processed in chunks of at most ``chunk`` slices."""
        ends = self.lengths.cumsum(0).tolist()
        slabs = slice(ends[studies.start - 1] if studies.start else 0, ends[studies.stop - 1])
        lengths = self.lengths[studies]
        z_mm = self.z_mm[studies, : int(lengths.max())]
        part = StudyBatch(self.hu[slabs], self.labels[slabs], z_mm, lengths, self.draws.part(slabs))
        return replace(part, chunk=min((c for c in (chunk, self.chunk) if c is not None), default=None))


class StudyBatches:
    """Reads batches of whole studies.

    Args:
        cache: An open cache.
        slabs: Rows of ``cache.slabs`` with labels, whole studies.
        cfg: Neighbours and augmentation.
    """

    def __init__(self, cache: PixelCache, slabs: pl.DataFrame, cfg: EmbedConfig) -> None:
        self.cfg = cfg
        self.data = SlabDataset(cache, slabs, cfg.neighbours, cfg.spacing_mm)
        self.z_mm = torch.from_numpy(slabs["z_mm"].to_numpy().astype(np.float32))
        lengths = slabs.group_by("study", maintain_order=True).len()["len"].to_numpy()
        ends = np.cumsum(lengths)
        self.spans = list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.spans)

    def epoch(self, batch: int, *, seed: int, epoch: int, chunk: int | None = None) -> Iterator[StudyBatch]:
        """Iterate over the batches of one epoch.

        Args:
            batch: Studies per batch.
            seed: Seed of order and augmentation.
            epoch: Number of the epoch.
            chunk: As in :class:`StudyBatch`.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = np.random.default_rng([seed, epoch, 2]).permutation(len(self))
        for start in range(0, len(order), batch):
            yield replace(self._read(order[start : start + batch].tolist(), generator), chunk=chunk)

    def _read(self, studies: list[int], generator: torch.Generator) -> StudyBatch:
        """Read studies and draw their augmentation."""
        spans = [self.spans[k] for k in studies]
        lengths = torch.tensor([stop - start for start, stop in spans])
        draws = _per_study(draw(self.cfg, int(lengths.sum()), generator), lengths)
        starts = lengths.cumsum(0) - lengths
        rows, places = [], []
        for (start, stop), reverse in zip(spans, draws.depth[starts].tolist(), strict=True):
            at = torch.arange(start, stop)
            at = at.flip(0) if reverse else at
            z_mm = -self.z_mm[at] if reverse else self.z_mm[at]
            rows.append(at)
            places.append(z_mm - z_mm[0])
        hu, labels = self.data.__getitems__(torch.cat(rows).tolist())
        return StudyBatch(hu, labels, pad_sequence(places, batch_first=True), lengths, draws)


def _per_study(draws: Draws, lengths: Tensor) -> Draws:
    """Give all slabs of a study the parameters of its first slab, apart from the erased rectangle."""
    first = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    same = {k: v[first] for k, v in vars(draws).items() if isinstance(v, Tensor) and k != "box"}
    return Draws(**(vars(draws) | same))


def split_studies(batch: StudyBatch, pieces: int) -> list[tuple[StudyBatch, float]]:
    """Split a batch so that each piece needs about ``1 / pieces`` of the memory.

    Up to one study per piece the batch is cut into studies; beyond that each study is processed in chunks
    with gradient checkpointing.

    Returns:
        The pieces, each with its share of the slabs.
    """
    studies = len(batch.lengths)
    size = max(1, -(-studies // pieces))
    finer = -(-pieces // studies)
    total, parts = int(batch.lengths.sum()), []
    for start in range(0, studies, size):
        cut = slice(start, min(start + size, studies))
        slabs = int(batch.lengths[cut].sum())
        chunk = max(1, -(-slabs // finer)) if pieces > studies else None
        parts.append((batch.part(cut, chunk), slabs / total))
    return parts


def finest_split(batch: StudyBatch) -> int:
    """Return the number of pieces at which every slice is a chunk of its own."""
    return len(batch.lengths) * int(batch.lengths.max())
