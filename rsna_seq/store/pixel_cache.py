"""Read the artefact of ``cache``: memory-mapped pixels and the table of their slabs."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.folds import must_keep_patients_whole
from rsna_seq.imaging.volume import Volume
from rsna_seq.store.artifacts import open_artifact
from rsna_seq.store.tables import SLABS, STUDY_LABELS, STUDY_LABELS_FILE, read_table


class PixelCache:
    """The artefact of ``cache``: memory-mapped HU, study by study, with the table of its slabs.

    A shard is compared with its digest when it is read for the first time.

    Args:
        folder: The folder ``2_cache`` of a run.

    Raises:
        IntegrityError: The artefact is incomplete or damaged, or its folds split a patient.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._artifact = open_artifact(self.folder)
        self.slabs = read_table(self._artifact.file("slabs.parquet"), SLABS)
        must_keep_patients_whole(self.slabs)
        starts = self.slabs.group_by("study", maintain_order=True).agg(
            pl.col("shard").first(), pl.col("row").first(), pl.len().alias("slabs"), pl.col("z_mm")
        )
        self._where = {r["study"]: r for r in starts.iter_rows(named=True)}
        self._shards: dict[int, NDArray[np.int16]] = {}
        self._sound: set[int] = set()

    def __len__(self) -> int:
        return len(self._where)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shards": {}}  # a worker process maps the shards again

    @cached_property
    def study_labels(self) -> pl.DataFrame | None:
        """STUDY_LABELS; None if no study has a label of its own."""
        if STUDY_LABELS_FILE not in self._artifact.manifest.files:
            return None
        return read_table(self._artifact.file(STUDY_LABELS_FILE), STUDY_LABELS)

    @cached_property
    def studies(self) -> list[str]:
        """StudyInstanceUIDs in the order of the cache."""
        return list(self._where)

    def shard(self, number: int) -> NDArray[np.int16]:
        """One memory-mapped shard, (row, y, x) HU.

        Raises:
            IntegrityError: The shard is missing or damaged.
        """
        if number not in self._shards:
            name = f"shard_{number:04d}.npy"
            path = self.folder / name if number in self._sound else self._artifact.file(name)
            self._sound.add(number)
            self._shards[number] = np.load(path, mmap_mode="r")
        return self._shards[number]

    def check(self) -> None:
        """Compare every shard with its digest now, so that worker processes need not do it.

        Raises:
            IntegrityError: A shard is missing or damaged.
        """
        for number in self.slabs["shard"].unique().sort():
            self.shard(int(number))

    def read(self, study: str) -> Volume:
        """Return a study without copying its pixels.

        Raises:
            KeyError: The study is not in the cache.
        """
        at = self._where[study]
        rows = slice(at["row"], at["row"] + at["slabs"])
        return Volume(study, self.shard(at["shard"])[rows], np.asarray(at["z_mm"], dtype=np.float64))

    def __iter__(self) -> Iterator[Volume]:
        return (self.read(study) for study in self.studies)
