"""Slices without a position in series with positions: interpolated by InstanceNumber, or quarantined.

1. Each series is ordered by one field: position, if at least half of its slices have one; otherwise
   SliceLocation, under the same condition; otherwise InstanceNumber; otherwise nothing.
2. A slice without orientation gets the orientation that all other slices of its series share; if they share
   none, its position cannot be used.
3. A slice without the field of its series is interpolated between the two slices with the enclosing
   InstanceNumbers, if positions are monotonic in InstanceNumber in the whole series. Frames use their numbers
   in the multi-frame object.
4. Remaining slices are quarantined, since an InstanceNumber is not a distance in mm.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.imaging.geometry import place
from rsna_seq.reasons import ExclusionError, Reason

_POSITION, _COSINES = [f"p_{i}" for i in range(3)], [f"o_{i}" for i in range(6)]
Rows = list[dict[str, object]]


def settle_places(slices: pl.DataFrame) -> tuple[pl.DataFrame, Rows]:
    """Give every slice a position, as far as its series allows it.

    Args:
        slices: Headers after ``geometry.place``, one series per study, with file, frame and slice.

    Returns:
        The slices that have a position; ``placed_by`` is ``neighbours`` if it was interpolated. And rows of
        QUARANTINE for the others.
    """
    if (slices["placed_by"] == "position").all() and not slices["o_0"].null_count():
        return slices, []
    mixed = slices.group_by("study").agg(
        several=pl.col("placed_by").n_unique() > 1,
        partly=pl.col("o_0").null_count().is_between(0, pl.len(), closed="none"),
    )
    odd = mixed.filter(pl.col("several") | pl.col("partly"))["study"]
    if odd.is_empty():
        return slices, []
    numbered = slices.with_row_index("row")
    concerned = pl.col("study").is_in(odd.implode())
    settled = [_settle(part) for _, part in numbered.filter(concerned).group_by("study", maintain_order=True)]
    table = pl.concat([numbered.filter(~concerned), *settled]).sort("row").drop("row")
    lost = [_excluded(row) for row in table.filter(pl.col("placed_by").is_null()).iter_rows(named=True)]
    return table.filter(pl.col("placed_by").is_not_null()), lost


def _settle(series: pl.DataFrame) -> pl.DataFrame:
    """Process one series; ``placed_by`` is null for slices without a position."""
    series = _with_shared_orientation(series)
    basis = _basis(series)
    z_mm = {"position": pl.col("z_mm"), "location": pl.col("location")}.get(basis, pl.col("number"))
    has = {
        "position": (pl.col("placed_by") == "position") & _oriented_alike(series),
        "location": pl.col("location").is_not_null(),
        "number": pl.col("number").is_not_null(),
    }.get(basis, pl.lit(value=True))
    by = pl.when(has).then(pl.lit(basis))
    placed = series.with_columns(z_mm=pl.when(has).then(z_mm).cast(pl.Float64), placed_by=by)
    if basis not in {"position", "location"} or placed["placed_by"].null_count() == 0:
        return placed.with_columns(z_mm=pl.col("z_mm").fill_null(0.0))
    counted = placed.with_columns(several=pl.len().over("file") > 1)
    key = pl.when("several").then("file").alias("object")
    parts = [
        _interpolated(part.drop("several"), basis) for _, part in counted.group_by(key, maintain_order=True)
    ]
    return pl.concat([part.select(series.columns) for part in parts])


def _with_shared_orientation(series: pl.DataFrame) -> pl.DataFrame:
    """Fill in the common orientation of the series, and compute the positions of slices that lacked it."""
    bare = pl.col("o_0").is_null()
    known = series.filter(~bare)
    if len(known) in {0, len(series)} or len(known.select(pl.col(_COSINES).round(2)).unique()) > 1:
        return series
    shared = zip(_COSINES, known.select(_COSINES).row(0), strict=True)
    filled = series.with_columns(pl.when(bare).then(value).otherwise(c).alias(c) for c, value in shared)
    return place(filled).select(series.columns)


def _oriented_alike(series: pl.DataFrame) -> pl.Expr:
    """Whether a position can be used: with an orientation, if any slice of the series has one."""
    oriented = pl.col("o_0").is_not_null()
    return oriented if series["o_0"].null_count() < len(series) else pl.lit(value=True)


def _basis(series: pl.DataFrame) -> str:
    """The field by which a series is ordered."""
    shares = {
        "position": (series["placed_by"] == "position").mean(),
        "location": series["location"].is_not_null().mean(),
    }
    for name, share in shares.items():
        if isinstance(share, float) and share >= 0.5:
            return name
    return "number" if series["number"].is_not_null().any() else "nothing"


def _interpolated(part: pl.DataFrame, basis: str) -> pl.DataFrame:
    """Slices with positions interpolated from their numbers."""
    placed = part["placed_by"].is_not_null().to_numpy()
    number = part["number"].cast(pl.Float64).to_numpy()
    at, of = number[placed], part["z_mm"].to_numpy()[placed]
    order = np.argsort(at)
    if not _follows(at[order], of[order]):
        return part
    inside = ~placed & (number > at.min()) & (number < at.max()) & ~np.isin(number, at)
    made: dict[str, Any] = {}
    for column in ["z_mm", *(_POSITION if basis == "position" else [])]:
        values = part[column].to_numpy().copy()
        values[inside] = np.interp(number[inside], at[order], values[placed][order])
        made[column] = pl.Series(values.round(3)).fill_nan(None)
    by = pl.when(pl.Series(inside)).then(pl.lit("neighbours")).otherwise("placed_by")
    return part.with_columns(**made, placed_by=by)


def _follows(number: NDArray[np.float64], z_mm: NDArray[np.float64]) -> bool:
    """Whether positions are strictly monotonic in the numbers, without repeated numbers."""
    if len(number) < 2 or not np.isfinite(number).all() or (np.diff(number) <= 0).any():
        return False
    steps = np.diff(z_mm)
    return bool(z_mm[0] != z_mm[-1] and ((steps >= 0).all() or (steps <= 0).all()))


def _excluded(row: dict[str, Any]) -> dict[str, object]:
    detail = "other slices of the series have a position, and it cannot be interpolated by InstanceNumber"
    excluded = ExclusionError(Reason.NO_PLACE, detail).row(row["file"])
    return excluded | {"study": row["study"], "slice": row["slice"]}
