"""The competition's submission file, and the CSV tables of a prediction.

``submission.csv`` has exactly the ids of the sample submission, in its order. Users open the other CSVs in
spreadsheets, which would run text that starts like a formula: such text gets a leading apostrophe.
"""

from pathlib import Path

import polars as pl

from rsna_seq.arrays import Floats
from rsna_seq.datasets.csv_file import ROW, open_csv
from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, slice_losses
from rsna_seq.store.files import atomic_path

_ESCAPED = r"^['=+\-@\t\r\n]"
"""Text that starts with one of these characters gets a leading apostrophe: characters that start a formula
(OWASP, CSV injection), and the apostrophe itself, so that reading restores the text."""
_TEXT = frozenset({"study", "series", "slice", "file", "root"})
"""Text columns of ``slices.csv`` and ``studies.csv``, besides columns that end with ``_slice``."""


def fill_excluded(slices: pl.DataFrame, excluded: pl.DataFrame) -> pl.DataFrame:
    """Give unreadable slices the probabilities of the nearest slice of the same study.

    Args:
        slices: PREDICTED_SLICES.
        excluded: QUARANTINE; used are rows with study and slice.

    Returns:
        slice and the six classes, for slices whose study has predictions.
    """
    lost = excluded.filter(
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
    """Fill in the sample submission.

    Args:
        sample: The competition's sample, ``ID,Label``.
        answers: slice and the six classes.
        prior: (6,) probabilities for a slice without a prediction.
        clip: Minimum distance of probabilities from 0 and 1.

    Returns:
        ``ID,Label`` in the sample's order, and the number of images that got the prior.

    Raises:
        UsageError: The file is not a sample submission, or contains an unknown class.
    """
    keys = read_sample(sample)
    long = answers.select("slice", *CLASSES).unpivot(index="slice", variable_name="name", value_name="Label")
    joined = keys.join(long, on=["slice", "name"], how="left", maintain_order="left")
    fallback = pl.DataFrame({"name": list(CLASSES), "prior": prior})
    joined = joined.join(fallback, on="name", how="left", maintain_order="left")
    unanswered = joined.filter(pl.col("Label").is_null())["slice"].n_unique()
    answer = pl.coalesce("Label", "prior").clip(clip, 1 - clip).alias("Label")
    return joined.select("ID", answer), unanswered


def read_sample(sample: Path) -> pl.DataFrame:
    """Read the ids of the sample submission and split them into slice and class.

    Returns:
        ``ID`` as in the file, ``slice`` and ``name`` (of the class), in the file's order.

    Raises:
        UsageError: The file is not a CSV with a column ID, has no rows, or contains an unknown class.
    """
    file = open_csv(sample, ("ID",))
    if "ID" not in file.columns:
        raise UsageError(f"{sample}: not a sample submission: the header has no column ID")
    if file.table.is_empty():
        raise UsageError(f"{sample}: not a sample submission: it contains no ids")
    bare = pl.col("ID").str.strip_chars()
    keys = file.table.select(
        "ID",
        ROW,
        slice=bare.str.extract(r"(?s)^(.*)_[^_]*$", 1),
        name=bare.str.extract(r"_([^_]*)$", 1),
    )
    known = pl.col("name").is_in(list(CLASSES)) & pl.col("slice").is_not_null()
    unknown = keys.filter(~known.fill_null(value=False))
    if len(unknown):
        row, first = unknown[ROW][0], unknown["ID"][0] or "no id"
        line = file.lines([row]).get(row, "?")
        raise UsageError(
            f"{sample}: {len(unknown):,} ids do not have the form IMAGE_CLASS, "
            f"first {first[:80]} (line {line})"
        )
    return keys.drop(ROW)


def write_submission(answer: pl.DataFrame, sample: Path, path: Path) -> None:
    """Check a submission against the sample and write it.

    Raises:
        AssertionError: The ids differ from the sample's, or a value is not a probability.
    """
    wanted = read_sample(sample)["ID"]
    assert answer["ID"].equals(wanted), "the submission's ids are not the sample's"
    assert len(answer) == len(wanted), len(answer)
    label = answer["Label"]
    assert label.is_between(0, 1, closed="none").fill_null(value=False).all(), (
        "not all values are probabilities"
    )
    write_csv(answer, path, escape=False)


def studies_table(slices: pl.DataFrame) -> pl.DataFrame:
    """One row per study: number of slices, and for each class the maximum, its z in mm and its slice.

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


def write_csv(table: pl.DataFrame, path: Path, *, escape: bool = True) -> None:
    """Write a table as CSV with eight decimals, atomically.

    Args:
        table: A table without nested columns.
        path: The file.
        escape: Write an apostrophe before text that a spreadsheet would read as a formula;
            :func:`read_escaped` removes it. False for files that programs read.
    """
    if escape:
        text = pl.selectors.string()
        formula = text.str.contains(_ESCAPED)
        table = table.with_columns(pl.when(formula).then(pl.lit("'") + text).otherwise(text).name.keep())
    with atomic_path(path) as temporary:
        table.write_csv(temporary, float_precision=8)


def read_escaped(path: Path) -> pl.DataFrame:
    """Read a CSV that :func:`write_csv` escaped; ids remain text, also if they contain only digits.

    Raises:
        UsageError: The file does not exist, or is not a CSV written by ``predict``.
    """
    try:
        header = pl.read_csv(path, n_rows=0, infer_schema=False).columns
        text = {name: pl.String() for name in header if name in _TEXT or name.endswith("_slice")}
        table = pl.read_csv(path, schema_overrides=text, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError):
        raise UsageError(f"{path}: not a table that predict wrote; run predict again") from None
    return table.with_columns(pl.col(pl.String).str.strip_prefix("'"))


def score_answer(slices: Path, labels: Path, seed: int = 0) -> Interval:
    """Official metric of a prediction with known labels; the interval resamples studies.

    Args:
        slices: A ``slices.csv`` written by ``predict``.
        labels: A label CSV; slices without a label are ignored.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: No slice has a label, or one of the files is not valid.
    """
    truth = read_labels(labels).select("slice", *(pl.col(c).alias(f"y_{c}") for c in CLASSES))
    both = read_escaped(slices).join(truth, on="slice", how="inner")
    if both.is_empty():
        raise UsageError(f"{slices}: none of its slices has a label in {labels}")
    losses = slice_losses(both.select(f"y_{c}" for c in CLASSES).to_numpy(), both.select(CLASSES).to_numpy())
    return Bootstrap(both["study"].to_numpy(), seed=seed).mean(losses)
