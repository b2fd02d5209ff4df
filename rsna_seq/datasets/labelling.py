"""Join labels of slices and studies to the slices of an index, and make folds of patients.

1. Labels of slices go to the slices. A class that the label of a study excludes is 0 in every slice.
2. STUDY_LABELS has the label of a study unless each of its slices has six labels of its own.
3. Folds are stratified on what is known of a patient by either level.
"""

from typing import NamedTuple

import polars as pl

from rsna_seq.config import IndexConfig
from rsna_seq.folds import assign
from rsna_seq.labels import CLASSES
from rsna_seq.store.tables import SLICES, STUDIES, STUDY_LABELS, check

_ZERO = pl.lit(0, pl.Int8)


class Labelled(NamedTuple):
    """Tables of ``index`` with labels and folds."""

    slices: pl.DataFrame
    """SLICES."""
    studies: pl.DataFrame
    """STUDIES."""
    study_labels: pl.DataFrame
    """STUDY_LABELS; may be empty."""
    unused: int
    """Number of labels without a readable slice or study."""


def join_labels(
    slices: pl.DataFrame, studies: pl.DataFrame, labels: pl.DataFrame, cfg: IndexConfig, seed: int
) -> Labelled:
    """Join labels of both levels, and folds.

    Args:
        slices: SLICES without labels.
        studies: STUDIES without labels.
        labels: LABELS.
        cfg: Folds, holdout.
        seed: Seed of the folds.
    """
    of_slices = labels.filter(pl.col("level") == "slice").select("slice", *CLASSES)
    of_studies = labels.filter(pl.col("level") == "study").select("study", *CLASSES)
    unused = len(of_slices.join(slices, on="slice", how="anti")) + len(
        of_studies.join(slices, on="study", how="anti")
    )
    complete = of_slices.filter(pl.all_horizontal(pl.col(c).is_not_null() for c in CLASSES))
    left = of_studies.join(slices.join(complete, on="slice", how="anti"), on="study", how="semi")
    whole = of_studies.select("study", *(pl.col(c).alias(f"_{c}") for c in CLASSES))
    bare = slices.drop(CLASSES, "fold", "cross_fold")
    joined = bare.join(of_slices, on="slice", how="left", maintain_order="left")
    joined = joined.join(whole, on="study", how="left", maintain_order="left")
    joined = joined.with_columns(
        pl.when(pl.col(c).is_null() & (pl.col(f"_{c}") == 0)).then(_ZERO).otherwise(c).alias(c)
        for c in CLASSES
    )
    known = joined.with_columns(pl.max_horizontal(c, f"_{c}").alias(c) for c in CLASSES)
    has_label = pl.any_horizontal(pl.col(c).is_not_null() for c in CLASSES)
    patients = known.filter(has_label).group_by("patient").agg(pl.col(c).max().fill_null(0) for c in CLASSES)
    folds = assign(patients, cfg, seed)
    joined = joined.drop(whole.columns[1:]).join(folds, on="patient", how="left", maintain_order="left")
    highest = known.group_by("study").agg(pl.col(c).max() for c in CLASSES)
    about = studies.drop(CLASSES, "fold", "cross_fold").join(
        highest, on="study", how="left", maintain_order="left"
    )
    about = about.join(folds, on="patient", how="left", maintain_order="left")
    return Labelled(
        check(joined.select(list(SLICES)), SLICES, "slices"),
        check(about.select(list(STUDIES)), STUDIES, "studies"),
        check(left.sort("study"), STUDY_LABELS, "study_labels"),
        unused,
    )
