"""Out-of-fold embeddings as studies: read from the artefact of ``embed``, batch by length, augment.

All vectors of a sequence come from one embedding network. A held-out study appears once per network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rsna_seq.labels import CLASSES
from rsna_seq.store.run_folder import open_folds
from rsna_seq.store.study_labels import coded_labels
from rsna_seq.store.tables import LOGITS, read_table


@dataclass(frozen=True)
class EmbeddedStudy:
    """One study, embedded by one network.

    Attributes:
        study: StudyInstanceUID.
        net: Fold of the embedding network.
        cross_fold: Fold of ``sequence`` that leaves this study out; -1 is a held-out study.
        vectors: (slab, feature).
        logits: (slab, 6) of the embedding network.
        z_mm: (slab,) positions in mm.
        labels: (slab, 6), below 0 where they are not known (:mod:`rsna_seq.store.study_labels`).
    """

    study: str
    net: int
    cross_fold: int
    vectors: NDArray[np.float32]
    logits: NDArray[np.float32]
    z_mm: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.z_mm)

    @property
    def is_partial(self) -> bool:
        """Whether a label is unknown, or known of the study only."""
        return bool((self.labels < 0).any())


class Studies(NamedTuple):
    """A padded batch of studies, all on one device."""

    vectors: Tensor
    """(study, slab, feature)."""
    logits: Tensor
    """(study, slab, 6) logits of the CNN."""
    z_mm: Tensor
    """(study, slab)."""
    lengths: Tensor
    """(study,) number of slabs, on the CPU."""

    @property
    def mask(self) -> Tensor:
        """(study, slab): True for slabs, False for padding."""
        steps = torch.arange(self.logits.shape[1], device=self.logits.device)
        return steps[None] < self.lengths.to(self.logits.device)[:, None]


def read_embedded_studies(
    embed: Path, slabs: pl.DataFrame, study_labels: pl.DataFrame | None = None
) -> list[EmbeddedStudy]:
    """Read all studies that ``embed`` embedded; vectors are memory-mapped.

    Args:
        embed: The folder ``3_embed``.
        slabs: The table ``2_cache/slabs.parquet``.
        study_labels: STUDY_LABELS of the cache, or None.

    Raises:
        IntegrityError: A fold is unfinished or damaged.
    """
    sequences = []
    coded = coded_labels(slabs, study_labels)
    labels = slabs.select("study", "slab", "z_mm", "cross_fold").with_columns(
        pl.Series(f"y_{c}", coded[:, i]) for i, c in enumerate(CLASSES)
    )
    for fold in open_folds(embed).values():
        vectors = np.load(fold.file("vectors.npy"), mmap_mode="r")
        table = read_table(fold.file("logits.parquet"), LOGITS).with_row_index("at")
        table = table.join(labels, on=["study", "slab"], how="left", maintain_order="left")
        for (study,), rows in table.group_by("study", maintain_order=True):
            at = rows["at"][0]
            sequences.append(_embedded_study(str(study), rows, vectors[at : at + len(rows)]))
    return sequences


def _embedded_study(study: str, rows: pl.DataFrame, vectors: NDArray[np.float32]) -> EmbeddedStudy:
    return EmbeddedStudy(
        study=study,
        net=int(rows["net"][0]),
        cross_fold=int(rows["cross_fold"][0]),
        vectors=vectors,
        logits=rows.select(CLASSES).to_numpy().astype(np.float32),
        z_mm=rows["z_mm"].to_numpy().astype(np.float32),
        labels=rows.select(f"y_{c}" for c in CLASSES).to_numpy().astype(np.float32),
    )


def collate(sequences: list[EmbeddedStudy]) -> tuple[Studies, Tensor]:
    """Pad studies to one batch; return it and its labels (study, slab, 6)."""

    def pad(arrays: list[NDArray[np.float32]]) -> Tensor:
        return pad_sequence([torch.from_numpy(np.array(a)) for a in arrays], batch_first=True)

    lengths = torch.tensor([len(s) for s in sequences])
    studies = Studies(
        vectors=pad([s.vectors for s in sequences]),
        logits=pad([s.logits for s in sequences]),
        z_mm=pad([s.z_mm - s.z_mm[0] for s in sequences]),
        lengths=lengths,
    )
    return studies, pad([s.labels for s in sequences])


def to_device(studies: Studies, device: torch.device) -> Studies:
    """Copy a batch to a device; lengths stay on the CPU, because packing reads them there."""
    vectors, logits, z_mm = (t.to(device, non_blocking=True) for t in studies[:3])
    return Studies(vectors, logits, z_mm, studies.lengths)


def length_batches(
    sequences: list[EmbeddedStudy], batch: int, *, seed: int, epoch: int
) -> Iterator[list[EmbeddedStudy]]:
    """Iterate over batches of studies of similar length, in an order that depends only on seed and epoch.

    Args:
        sequences: The training studies.
        batch: Studies per batch.
        seed: Seed of the order.
        epoch: Number of the epoch.
    """
    random = np.random.default_rng([seed, epoch])
    jitter = random.uniform(0.8, 1.25, len(sequences))  # batches differ from epoch to epoch
    order = np.argsort([len(s) for s in sequences] * jitter, kind="stable")
    chunks = [order[i : i + batch] for i in range(0, len(order), batch)]
    for chunk in random.permutation(len(chunks)):
        yield [sequences[i] for i in chunks[chunk]]


def augment_study(
    sequence: EmbeddedStudy, random: np.random.Generator, *, reverse: float, drop: float
) -> EmbeddedStudy:
    """Reverse the slab order of a study and drop slabs, both at random.

    Args:
        sequence: The study.
        random: Random number generator.
        reverse: Probability of reversing the slab order; z is negated with it.
        drop: Share of slabs that is dropped; at least one slab is kept.
    """
    keep = np.flatnonzero(random.random(len(sequence)) >= drop)
    keep = keep if len(keep) else np.arange(1)
    z_mm = sequence.z_mm
    if random.random() < reverse:
        keep, z_mm = keep[::-1], -z_mm
    return EmbeddedStudy(
        sequence.study,
        sequence.net,
        sequence.cross_fold,
        sequence.vectors[keep],
        sequence.logits[keep],
        z_mm[keep],
        sequence.labels[keep],
    )
