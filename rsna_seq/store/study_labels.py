"""Labels of slabs where only the label of a whole study is known, or some classes are unknown."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.labels import CLASSES

ONE_OF = -1.0
"""Label of a slab whose study has the class in at least one of the slabs with this label."""
UNKNOWN = -2.0
"""Label of a slab of which nothing is known."""


def coded_labels(slabs: pl.DataFrame, study_labels: pl.DataFrame | None) -> NDArray[np.float32]:
    """Labels for training, (slab, 6): 0, 1, :data:`ONE_OF` or :data:`UNKNOWN`.

    Args:
        slabs: Rows of SLABS, whole studies; null where the slab has no label.
        study_labels: STUDY_LABELS, or None if no study has a label of its own.
    """
    labels: NDArray[np.float32] = slabs.select(CLASSES).cast(pl.Float32).to_numpy()
    unknown = np.isnan(labels)
    if not unknown.any():
        return labels
    labels = np.where(unknown, np.float32(UNKNOWN), labels)
    if study_labels is not None:
        keyed = slabs.select("study", *(pl.col(c).max().over("study").alias(f"_{c}") for c in CLASSES))
        joined = keyed.join(study_labels, on="study", how="left", maintain_order="left")
        has = joined.select((pl.col(c) == 1).fill_null(value=False) for c in CLASSES).to_numpy()
        seen = joined.select((pl.col(f"_{c}") == 1).fill_null(value=False) for c in CLASSES).to_numpy()
        labels = np.where(unknown & has & ~seen, np.float32(ONE_OF), labels)
    return labels


def slice_labelled(slabs: pl.DataFrame, study_labels: pl.DataFrame | None) -> pl.DataFrame:
    """Set the labels of studies that were labelled as a whole to null.

    The slabs of a study without haemorrhage are known to be 0, those of a study with one are not known:
    scores and boosters that took the first and not the second would take haemorrhage for rarer than it is.

    Args:
        slabs: Columns ``study`` and six classes.
        study_labels: STUDY_LABELS, or None.
    """
    if study_labels is None:
        return slabs
    by_slices = ~pl.col("study").is_in(study_labels["study"].implode())
    for c in CLASSES:  # a study with both: a slice has a class only if it was labelled itself
        by_slices |= (pl.col(c) == 1).fill_null(value=False).any().over("study")
    return slabs.with_columns(pl.when(by_slices).then(c).alias(c) for c in CLASSES)
