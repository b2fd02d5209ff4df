"""Passes of a study: if a series covers the same part of the head twice, each pass is processed separately.

Slices are grouped by header fields: orientation, in-plane position of the first pixel, and rescale. Groups
that overlap are separate passes; groups that follow one another (a tilt that changes half way) are one pass.
Overlapping slices with equal fields cannot be separated: they are flagged, and neighbours are selected far
enough away.
"""

from typing import Any

import polars as pl

_LEAST = 3
"""Minimum number of slices of a pass."""
_SHARED = 0.25
"""Fraction of the shorter of two groups that must overlap."""


def split_passes(slices: pl.DataFrame) -> pl.DataFrame:
    """Add ``pass``, the number of the pass that a slice belongs to; 0 has the most slices.

    Args:
        slices: Headers with positions, one series per study: study, z_mm, orientation, position, rescale.
    """
    group = _group_key()
    spread = [((e.max() - e.min()).fill_null(0.0) > 0).alias(f"{i}") for i, e in enumerate(group)]
    nulls = (pl.col("o_0").null_count() % pl.len() > 0).alias("nulls")
    several = slices.group_by("study").agg(*spread, nulls).filter(pl.any_horizontal(pl.exclude("study")))
    table = slices.with_columns(group=pl.lit(None, pl.String))
    mixed = pl.col("study").is_in(several["study"].implode())
    if several.is_empty():
        return slices.with_columns(pl.lit(0, pl.Int16).alias("pass"))
    words = pl.concat_str(group, separator=" ", ignore_nulls=True)
    table = slices.with_columns(group=pl.when(mixed).then(words))
    spans = (
        table.filter(mixed)
        .group_by("study", "group")
        .agg(low=pl.col("z_mm").min(), high=pl.col("z_mm").max(), slices=pl.len())
    )
    spans = spans.sort("study", "slices", "low", "group", descending=[False, True, False, False])
    numbered = [
        part.with_columns(pl.Series("pass", _numbers(part.to_dicts()), dtype=pl.Int16))
        for _, part in spans.group_by("study", maintain_order=True)
    ]
    known = pl.concat(numbered).select("study", "group", "pass")
    joined = table.join(known, on=["study", "group"], how="left", maintain_order="left").drop("group")
    return joined.with_columns(pl.col("pass").fill_null(0))


def _group_key() -> list[pl.Expr]:
    """Columns that are equal for all slices of a group."""
    cosines = [pl.col(f"o_{i}").round(2) for i in range(6)]  # half a degree
    # only along the rows: with a tilted gantry the first pixel moves along the columns between slices
    along = sum((pl.col(f"p_{i}") * pl.col(f"o_{i}") for i in range(3)), pl.lit(0.0)).round()
    return [*cosines, along, pl.col("slope"), pl.col("intercept")]


def _numbers(spans: list[dict[str, Any]]) -> list[int]:
    """Number the passes of one study, longest first: overlapping groups are separate, others are joined."""
    passes: list[list[dict[str, Any]]] = []
    numbers = []
    for span in spans:
        free = [n for n, taken in enumerate(passes) if not any(_overlap(span, other) for other in taken)]
        if free or (passes and span["slices"] < _LEAST):
            numbers.append(free[0] if free else 0)
            passes[numbers[-1]].append(span)
        else:
            numbers.append(len(passes))
            passes.append([span])
    return numbers


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two groups cover the same part of the head."""
    shared = min(one["high"], other["high"]) - max(one["low"], other["low"])
    return bool(shared > _SHARED * min(one["high"] - one["low"], other["high"] - other["low"]))
