"""The competition's answer file: the ids of the sample submission, in its order, every one answered."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.artifacts import atomic_path
from rsna_seq.bootstrap import Bootstrap
from rsna_seq.errors import UsageError
from rsna_seq.label_csv import read_labels
from rsna_seq.labels import CLASSES, N_CLASSES
from rsna_seq.metric import Interval, slice_losses

Floats = NDArray[np.float64]


def fill_set_aside(slices: pl.DataFrame, set_aside: pl.DataFrame) -> pl.DataFrame:
    """Answer slices that could not be read by the slice of the same study that lies nearest.

    Args:
        slices: PREDICTED_SLICES.
        set_aside: QUARANTINE; rows whose header still told study and slice are answered.

    Returns:
        slice and the six classes, for those that have a study to take an answer from.
    """
    lost = set_aside.filter(
        pl.col("slice").is_not_null() & pl.col("study").is_in(slices["study"].unique().implode())
    )
    lost = lost.filter(~pl.col("slice").is_in(slices["slice"].implode())).unique("slice", maintain_order=True)
    if lost.is_empty():
        return slices.head(0).select("slice", *CLASSES)
    near = lost.select("slice", "study", at="z_mm").join(slices.drop("slice"), on="study")
    near = near.with_columns(away=(pl.col("at") - pl.col("z_mm")).abs().fill_null(0.0))
    nearest = near.filter(pl.col("away") == pl.col("away").min().over("slice"))
    return nearest.group_by("slice", maintain_order=True).agg(pl.col(c).mean() for c in CLASSES)


def submission(sample: Path, answers: pl.DataFrame, prior: Floats, clip: float) -> tuple[pl.DataFrame, int]:
    """Answer the sample submission.

    Args:
        sample: The competition's sample, ``ID,Label``.
        answers: slice and the six classes.
        prior: (6,) probabilities for a slice that nothing is known of.
        clip: Probabilities are kept this far from 0 and 1.

    Returns:
        ``ID,Label`` in the sample's order, and the number of images that took the prior.

    Raises:
        UsageError: The sample is no such file, or names a class that there is not.
    """
    ids = _read_sample(sample)
    keys = ids.select(
        "ID",
        slice=pl.col("ID").str.extract(r"^(.*)_[^_]*$", 1),
        name=pl.col("ID").str.extract(r"_([^_]*)$", 1),
    )
    unknown = keys.filter(~pl.col("name").is_in(list(CLASSES)) | pl.col("slice").is_null())
    if len(unknown):
        raise UsageError(f"{sample}: {len(unknown)} ids are not IMAGE_CLASS, first {unknown['ID'][0]!r}")
    long = answers.select("slice", *CLASSES).unpivot(index="slice", variable_name="name", value_name="Label")
    joined = keys.join(long, on=["slice", "name"], how="left", maintain_order="left")
    fallback = pl.DataFrame({"name": list(CLASSES), "prior": prior})
    joined = joined.join(fallback, on="name", how="left", maintain_order="left")
    unanswered = joined.filter(pl.col("Label").is_null())["slice"].n_unique()
    answer = pl.coalesce("Label", "prior").clip(clip, 1 - clip).alias("Label")
    return joined.select("ID", answer), unanswered


def write_submission(answer: pl.DataFrame, sample: Path, path: Path) -> None:
    """Check an answer against the sample and write it.

    Raises:
        AssertionError: The answer is not the sample's ids in the sample's order, each with a probability.
    """
    wanted = _read_sample(sample)["ID"]
    assert answer["ID"].equals(wanted), "the submission's ids are not the sample's"
    assert len(answer) == len(wanted), len(answer)
    label = answer["Label"]
    assert label.is_between(0, 1, closed="none").fill_null(value=False).all(), "not all are probabilities"
    write_csv(answer, path)


def studies_table(slices: pl.DataFrame) -> pl.DataFrame:
    """One row a study: how many slices, and for each class the maximum, its z in mm and its slice.

    Args:
        slices: PREDICTED_SLICES.
    """
    highest = [
        expression
        for c in CLASSES
        for expression in (
            pl.col(c).max().alias(c),
            pl.col("z_mm").get(pl.col(c).arg_max()).alias(f"{c}_z_mm"),
            pl.col("slice").get(pl.col(c).arg_max()).alias(f"{c}_slice"),
        )
    ]
    return slices.group_by("study", maintain_order=True).agg(pl.len().alias("slices"), *highest)


def write_csv(table: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV, complete or not at all; eight decimals."""
    with atomic_path(path) as temporary:
        table.write_csv(temporary, float_precision=8)


def prior_of(labels: pl.DataFrame) -> Floats:
    """Prevalence of each class, (6,), of a table with the six label columns; unlabelled rows do not count."""
    means = labels.select(pl.col(c).mean() for c in CLASSES).row(0)
    return np.array([m if m is not None else 0.5 for m in means], dtype=np.float64).reshape(N_CLASSES)


def score_answer(slices: Path, labels: Path, seed: int = 0) -> Interval:
    """The official metric of a prediction whose truth is known; the interval resamples studies.

    Args:
        slices: A ``slices.csv`` that ``predict`` wrote.
        labels: A label CSV; slices without a label do not count.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: No slice has a label.
    """
    truth = read_labels(labels).select("slice", *(pl.col(c).alias(f"y_{c}") for c in CLASSES))
    both = pl.read_csv(slices).join(truth, on="slice", how="inner")
    if both.is_empty():
        raise UsageError(f"{slices}: no slice of it has a label in {labels}")
    losses = slice_losses(both.select(f"y_{c}" for c in CLASSES).to_numpy(), both.select(CLASSES).to_numpy())
    return Bootstrap(both["study"].to_numpy(), seed=seed).mean(losses)


def _read_sample(sample: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(sample, columns=["ID"], schema_overrides={"ID": pl.String})
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{sample}: not a sample submission (a CSV with the column ID): {error}") from error
    return table
