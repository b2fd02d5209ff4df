"""The stacker's features: what a slice's neighbours and its study say, never across a study's border.

All features are polars expressions over whole columns, one window a (study, network, model) group.
"""

from collections.abc import Sequence

import polars as pl

from rsna_seq.labels import CLASSES
from rsna_seq.store.tables import LOGITS

GROUP = ("study", "net", "cross")
SOURCES = ("cnn", "seq")
_SPAN = 3
"""Slices over which running means reach to either side."""


def join_logits(cnn: pl.DataFrame, sequence: pl.DataFrame, slabs: pl.DataFrame) -> pl.DataFrame:
    """Bring the logits of both models and the geometry together.

    Args:
        cnn: LOGITS of ``embed``.
        sequence: LOGITS of ``sequence``, whose rows are answered.
        slabs: SLABS; its order, study by study from the lowest slab, is kept within a group.

    Returns:
        study, net, cross, slab, z_mm, gaps, ``cnn_<class>`` and ``seq_<class>``; sorted by group and slab.
    """
    ours = cnn.select("study", "slab", "net", *(pl.col(c).alias(f"cnn_{c}") for c in CLASSES))
    theirs = sequence.select(list(LOGITS)).rename({c: f"seq_{c}" for c in CLASSES})
    geometry = slabs.select("study", "slab", "z_mm", "gap_below_mm", "gap_above_mm")
    joined = theirs.join(ours, on=["study", "slab", "net"], how="left").join(
        geometry, on=["study", "slab"], how="left"
    )
    return joined.sort(*GROUP, "slab")


def stack_features(table: pl.DataFrame, neighbours: int, sources: Sequence[str] = SOURCES) -> pl.DataFrame:
    """Compute the features of every row.

    Args:
        table: As :func:`join_logits` makes it, sorted by group and slab.
        neighbours: Slices either side whose logits are features.
        sources: The models whose logits are: ``cnn``, ``seq``.

    Returns:
        Float32 columns, one row a row: for each model and class the logit, those of the neighbours, running
        means and maxima in both directions, the study's maximum, mean and upper quartile; position, gaps.
    """
    columns = [f"{s}_{c}" for s in sources for c in CLASSES]
    # groups lie together: one number a group is found at once, and a shift that leaves the group is blanked
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
    """The features that the booster of one class sees: its own in full, the others' opinion of the slice."""
    return [f for f in names if f"_{name}" in f or not f.startswith(SOURCES) or f.split("_", 1)[1] in CLASSES]


def _running(column: str) -> list[pl.Expr]:
    """Running maxima in both directions, and the study's own statistics, of one column."""
    x = pl.col(column)
    return [
        x.cum_max().over("_g").alias(f"{column}:max_up"),
        x.cum_max(reverse=True).over("_g").alias(f"{column}:max_down"),
        x.max().over("_g").alias(f"{column}:max"),
        x.mean().over("_g").alias(f"{column}:mean"),
        x.quantile(0.75).over("_g").alias(f"{column}:upper"),
    ]
