"""Decoded sweeps as rows of SLABS: a table of a whole shard costs what one of a single sweep does."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.labels import CLASSES
from rsna_seq.tables import SLABS, check


@dataclass(frozen=True)
class Sweep:
    """What was decoded of one sweep of a study.

    Attributes:
        slices: Rows of SLICES, all that were asked for.
        kept: Which of them were decoded.
        hu: (slab, y, x) HU; None where nothing was decoded.
        numbers: (kept,) the slab of each, from 0.
        hashes: (kept,) ``imaging.pixels.pixel_hash`` of each.
        square: The crop in pixels: left, top, side.
        set_aside: Rows of QUARANTINE for the others.
    """

    slices: pl.DataFrame
    kept: list[int] = field(default_factory=list)
    hu: NDArray[np.int16] | None = None
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    hashes: list[str | None] = field(default_factory=list)
    square: tuple[int, int, int] = (0, 0, 0)
    set_aside: list[dict[str, object]] = field(default_factory=list)


def slab_table(sweeps: Sequence[Sweep], shard: int = 0) -> pl.DataFrame:
    """SLABS of sweeps that lie in one array, one behind the other.

    Args:
        sweeps: In the array's order.
        shard: Number of the array.
    """
    if not any(sweep.kept for sweep in sweeps):
        return pl.DataFrame(schema=dict(SLABS))
    slabs = _slices(sweeps).group_by("study", "slab", maintain_order=True)
    table = slabs.agg(
        pl.col("patient", "fold", "cross_fold", "x0", "y0", "side").first(),
        pl.col("z_mm").mean(),
        pl.col("slice").alias("slices"),
        pl.col("hash").alias("hashes"),
        *(pl.col(c).max() for c in CLASSES),
    )
    gap = pl.col("z_mm").diff()
    table = table.with_columns(
        gap_below_mm=gap.over("study"),
        gap_above_mm=gap.shift(-1).over("study"),
        shard=pl.lit(shard, pl.Int32),
        row=pl.int_range(pl.len(), dtype=pl.Int64),
    )
    return check(table, SLABS, "slabs")


def _slices(sweeps: Sequence[Sweep]) -> pl.DataFrame:
    """The decoded slices of all sweeps, each with its slab; a pass is a study of its own."""
    everything = pl.concat([sweep.slices for sweep in sweeps])
    starts = np.cumsum([0, *(len(sweep.slices) for sweep in sweeps)])
    kept = [start + i for start, sweep in zip(starts, sweeps, strict=False) for i in sweep.kept]
    squares = np.repeat([s.square for s in sweeps], [len(s.kept) for s in sweeps], axis=0).astype(np.int32)
    rows = everything if len(kept) == len(everything) else everything[kept]
    number = (pl.col("pass") + 1).cast(pl.String)
    return rows.with_columns(
        study=pl.when(pl.col("pass") > 0).then(pl.col("study") + "/" + number).otherwise("study"),
        slab=pl.Series(np.concatenate([s.numbers for s in sweeps]), dtype=pl.Int32),
        hash=pl.Series([h for s in sweeps for h in s.hashes], dtype=pl.String),
        x0=squares[:, 0],
        y0=squares[:, 1],
        side=squares[:, 2],
    )
