"""Features of the stacker: logits of the slice, its neighbours and its study, never of another study.

All features are polars expressions over whole columns, windowed by (study, network, model).
"""

from collections.abc import Sequence

import polars as pl

from rsna_seq.labels import CLASSES
from rsna_seq.store.tables import LOGITS

GROUP = ("study", "net", "cross")
SOURCES = ("cnn", "seq", "joint")
_SPAN = 3
"""Window length of the one-sided running means, in slices."""


def join_logits(
    cnn: pl.DataFrame, sequence: pl.DataFrame, slabs: pl.DataFrame, joint: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Join the logits of the models and the geometry.

    ``embed`` and ``joint`` have one network per fold, and a row takes the logits of its own ``net``. That of
    an out-of-fold study never saw the study's patient.

    Args:
        cnn: LOGITS of ``embed``.
        sequence: LOGITS of ``sequence``; the result has one row per row of this table.
        slabs: SLABS.
        joint: LOGITS of ``joint``, if it is used.

    Returns:
        study, net, cross, slab, z_mm, gaps, ``cnn_<class>``, ``seq_<class>`` and, if it is used,
        ``joint_<class>``; sorted by group and slab.
    """
    joined = sequence.select(list(LOGITS)).rename({c: f"seq_{c}" for c in CLASSES})
    for name, table in (("cnn", cnn), ("joint", joint)):
        if table is not None:
            of_net = table.select("study", "slab", "net", *(pl.col(c).alias(f"{name}_{c}") for c in CLASSES))
            joined = joined.join(of_net, on=["study", "slab", "net"], how="left")
    geometry = slabs.select("study", "slab", "z_mm", "gap_below_mm", "gap_above_mm")
    return joined.join(geometry, on=["study", "slab"], how="left").sort(*GROUP, "slab")


def stack_features(
    table: pl.DataFrame, neighbours: int, sources: Sequence[str] = ("cnn", "seq")
) -> pl.DataFrame:
    """Compute the features of every row.

    Args:
        table: Output of :func:`join_logits`, sorted by group and slab.
        neighbours: Neighbouring slices on each side whose logits are features.
        sources: Models whose logits are features: ``cnn``, ``seq``, ``joint``.

    Returns:
        Float32 columns, one row per row of ``table``. For each model and class: the logit, the logits of the
        neighbours, running means and maxima in both directions, the study's maximum, mean and upper quartile.
        In addition: position, number of slices, gaps and extent.
    """
    columns = [f"{s}_{c}" for s in sources for c in CLASSES]
    # rows of a group are contiguous: number the groups once, and set shifted values of other groups to null
    table = table.select(*columns, "gap_below_mm", "gap_above_mm", "z_mm", _g=pl.struct(GROUP).rle_id())
    reach = max(neighbours, _SPAN - 1)
    inside = {k: f"_{k}" for k in range(-reach, reach + 1) if k}
    table = table.with_columns(
        (pl.col("_g") == pl.col("_g").shift(k)).alias(name) for k, name in inside.items()
    )

    def moved(column: str, k: int) -> pl.Expr:
        return pl.when(inside[k]).then(pl.col(column).shift(k))

    count, rank = pl.len().over("_g"), pl.int_range(pl.len()).over("_g")
    features = [pl.col(c) for c in columns]
    features += [
        moved(c, k).alias(f"{c}@{-k:+d}") for c in columns for k in range(-neighbours, neighbours + 1) if k
    ]
    for c in columns:
        for way, name in ((1, "up"), (-1, "down")):
            span = [pl.col(c), *(moved(c, way * k) for k in range(1, _SPAN))]
            features.append(pl.mean_horizontal(span).alias(f"{c}:mean_{name}"))
        features += _running(c)
    features += [
        (rank / (count - 1).clip(lower_bound=1)).alias("position"),
        count.alias("slices"),
        pl.col("gap_below_mm"),
        pl.col("gap_above_mm"),
        (pl.col("z_mm").max() - pl.col("z_mm").min()).over("_g").alias("extent_mm"),
    ]
    return table.select(feature.cast(pl.Float32) for feature in features)


def class_features(names: list[str], name: str) -> list[str]:
    """Select the features of one class's booster: all of this class, and the slice's logits of the others."""
    return [f for f in names if f"_{name}" in f or not f.startswith(SOURCES) or f.split("_", 1)[1] in CLASSES]


def _running(column: str) -> list[pl.Expr]:
    """Running maxima in both directions and study statistics of one column."""
    x = pl.col(column)
    return [
        x.cum_max().over("_g").alias(f"{column}:max_up"),
        x.cum_max(reverse=True).over("_g").alias(f"{column}:max_down"),
        x.max().over("_g").alias(f"{column}:max"),
        x.mean().over("_g").alias(f"{column}:mean"),
        x.quantile(0.75).over("_g").alias(f"{column}:upper"),
    ]
