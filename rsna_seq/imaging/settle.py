"""Slices without a place among others of their series that have one: interpolated by number, or quarantined.

1. Each series rests on one thing: position, where at least half of its slices have one; else SliceLocation,
   on the same terms; else InstanceNumber; else nothing.
2. A slice without orientation takes the one that all others of its series share; without such, a position
   says nothing of its place among theirs.
3. A slice without what its series rests on lies between the two slices whose InstanceNumbers enclose its own,
   where places rise or fall with the numbers throughout the series. Frames have the numbers of their object.
4. What is left is quarantined: an InstanceNumber is no millimetre.
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
    """Give every slice a place that its series allows.

    Args:
        slices: Placed headers of one series a study (``geometry.place``), with file, frame and slice.

    Returns:
        The slices that have a place; ``placed_by`` is ``neighbours`` where it was interpolated. And rows of
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
    lost = [_aside(row) for row in table.filter(pl.col("placed_by").is_null()).iter_rows(named=True)]
    return table.filter(pl.col("placed_by").is_not_null()), lost


def _settle(series: pl.DataFrame) -> pl.DataFrame:
    """One series; ``placed_by`` is null where there is no place."""
    series = _with_shared_orientation(series)
    basis = _basis(series)
    z_mm = {"position": pl.col("z_mm"), "location": pl.col("location")}.get(basis, pl.col("number"))
    has = {
        "position": (pl.col("placed_by") == "position") & _oriented_alike(series),
        "location": pl.col("location").is_not_null(),
        "number": pl.col("number").is_not_null(),
    }.get(basis, pl.lit(value=True))
    by = pl.when(has).then(pl.lit(basis))
    told = series.with_columns(z_mm=pl.when(has).then(z_mm).cast(pl.Float64), placed_by=by)
    if basis not in {"position", "location"} or told["placed_by"].null_count() == 0:
        return told.with_columns(z_mm=pl.col("z_mm").fill_null(0.0))
    counted = told.with_columns(several=pl.len().over("file") > 1)
    key = pl.when("several").then("file").alias("object")
    parts = [
        _interpolated(part.drop("several"), basis) for _, part in counted.group_by(key, maintain_order=True)
    ]
    return pl.concat([part.select(series.columns) for part in parts])


def _with_shared_orientation(series: pl.DataFrame) -> pl.DataFrame:
    """Fill in the orientation that all slices which have one share, and place anew those that lacked it."""
    bare = pl.col("o_0").is_null()
    known = series.filter(~bare)
    if len(known) in {0, len(series)} or len(known.select(pl.col(_COSINES).round(2)).unique()) > 1:
        return series
    shared = zip(_COSINES, known.select(_COSINES).row(0), strict=True)
    filled = series.with_columns(pl.when(bare).then(value).otherwise(c).alias(c) for c, value in shared)
    return place(filled).select(series.columns)


def _oriented_alike(series: pl.DataFrame) -> pl.Expr:
    """A position counts with an orientation, where any slice of the series has one."""
    oriented = pl.col("o_0").is_not_null()
    return oriented if series["o_0"].null_count() < len(series) else pl.lit(value=True)


def _basis(series: pl.DataFrame) -> str:
    """What the places of a series rest on."""
    shares = {
        "position": (series["placed_by"] == "position").mean(),
        "location": series["location"].is_not_null().mean(),
    }
    for name, share in shares.items():
        if isinstance(share, float) and share >= 0.5:
            return name
    return "number" if series["number"].is_not_null().any() else "nothing"


def _interpolated(part: pl.DataFrame, basis: str) -> pl.DataFrame:
    """Slices that share a count, with the places that their numbers tell."""
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
    """Whether places rise, or fall, with rising numbers, no number twice."""
    if len(number) < 2 or not np.isfinite(number).all() or (np.diff(number) <= 0).any():
        return False
    steps = np.diff(z_mm)
    return bool(z_mm[0] != z_mm[-1] and ((steps >= 0).all() or (steps <= 0).all()))


def _aside(row: dict[str, Any]) -> dict[str, object]:
    detail = "no position among slices with one, and no InstanceNumber between theirs that tells it"
    told = ExclusionError(Reason.NO_PLACE, detail).row(row["file"])
    return told | {"study": row["study"], "slice": row["slice"]}
