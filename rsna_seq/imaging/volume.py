"""The pixels of a study, the common input of training and prediction, and the interface of the cache."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

AIR_HU = -1024
"""Value outside the field of view and outside the image, in HU."""


@dataclass(frozen=True)
class Volume:
    """One study, lowest slab first; a slab is one slice, except in thin series.

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
        """Columns of SLABS with the position of each slab: study, slab, z_mm and both gaps."""
        gaps = pl.col("z_mm").diff()
        slabs = pl.DataFrame({"z_mm": self.z_mm}, schema={"z_mm": pl.Float64})
        return slabs.select(
            study=pl.lit(self.study),
            slab=pl.int_range(pl.len(), dtype=pl.Int32),
            z_mm="z_mm",
            gap_below_mm=gaps,
            gap_above_mm=gaps.shift(-1),
        )
