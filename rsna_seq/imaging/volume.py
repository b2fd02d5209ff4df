"""A study as pixels: the unit that training and prediction share, and the cache that holds many."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.folds import must_keep_patients_whole
from rsna_seq.store.artifacts import open_artifact
from rsna_seq.tables import SLABS, read_table

AIR_HU = -1024
"""What lies outside the field of view and outside a crop."""


@dataclass(frozen=True)
class Volume:
    """One study, lowest slab first; a slab is one slice, but for thin series.

    Attributes:
        study: StudyInstanceUID.
        hu: (slab, y, x) Hounsfield units, int16.
        z_mm: (slab,) position along the slice normal.
    """

    study: str
    hu: NDArray[np.int16]
    z_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or len(self.hu) != len(self.z_mm):
            raise ValueError(
                f"{self.study}: {self.hu.shape} pixels and {self.z_mm.shape} positions do not match"
            )

    def __len__(self) -> int:
        return len(self.hu)

    def places(self) -> pl.DataFrame:
        """Columns of SLABS that say where each slab lies: study, slab, z_mm and both gaps."""
        gaps = pl.col("z_mm").diff()
        slabs = pl.DataFrame({"z_mm": self.z_mm}, schema={"z_mm": pl.Float64})
        return slabs.select(
            study=pl.lit(self.study),
            slab=pl.int_range(pl.len(), dtype=pl.Int32),
            z_mm="z_mm",
            gap_below_mm=gaps,
            gap_above_mm=gaps.shift(-1),
        )


class PixelCache:
    """The artefact of ``cache``: memory-mapped HU, study-contiguous, with the table of its slabs.

    A shard is compared with its digest when it is first read.

    Args:
        folder: The folder ``2_cache`` of a run.

    Raises:
        IntegrityError: The artefact is not finished or damaged, or its folds cut a patient.
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
        return {**self.__dict__, "_shards": {}}  # a worker process maps the shards anew

    @cached_property
    def studies(self) -> list[str]:
        """StudyInstanceUIDs in the cache's order."""
        return list(self._where)

    def shard(self, number: int) -> NDArray[np.int16]:
        """One memory-mapped shard, (row, y, x) HU.

        Raises:
            IntegrityError: It is missing or damaged.
        """
        if number not in self._shards:
            name = f"shard_{number:04d}.npy"
            path = self.folder / name if number in self._sound else self._artifact.file(name)
            self._sound.add(number)
            self._shards[number] = np.load(path, mmap_mode="r")
        return self._shards[number]

    def check(self) -> None:
        """Compare every shard with its digest now, so that no worker process reads one to check it.

        Raises:
            IntegrityError: One is missing or damaged.
        """
        for number in self.slabs["shard"].unique().sort():
            self.shard(int(number))

    def read(self, study: str) -> Volume:
        """A study, without copying a pixel.

        Raises:
            KeyError: The study is not in the cache.
        """
        at = self._where[study]
        rows = slice(at["row"], at["row"] + at["slabs"])
        return Volume(study, self.shard(at["shard"])[rows], np.asarray(at["z_mm"], dtype=np.float64))

    def __iter__(self) -> Iterator[Volume]:
        return (self.read(study) for study in self.studies)
