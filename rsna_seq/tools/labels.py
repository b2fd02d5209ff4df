"""``labels``: the competition's long label CSV to one wide row per slice, and back."""

from pathlib import Path
from typing import TypeVar

import pandas as pd
import polars as pl

from rsna_seq.datasets.rsna2019.label_csv import Labels, check_labels, to_long
from rsna_seq.datasets.rsna2019.submission import write_csv
from rsna_seq.errors import UsageError

Frame = TypeVar("Frame", pl.DataFrame, pd.DataFrame)


def run(source: Path, target: Path, *, fix_any: bool = False) -> str:
    """Turn a label CSV into the other form.

    Args:
        source: Long (``ID,Label``) or wide (``name`` and six classes).
        target: Receives the other form. Ids are written as they are, not escaped for spreadsheets.
        fix_any: Set ``any`` to 1 where a class is 1, instead of refusing the labels.

    Returns:
        What was written, and one more line for each thing that is unusual.

    Raises:
        UsageError: The source is neither form, or contradicts itself; or the target exists.
    """
    if target.exists():
        raise UsageError(f"{target}: exists and is not overwritten; delete it, or choose another name")
    labels = check_labels(source, fix_any=fix_any)
    other = _other(labels)
    write_csv(other, target, escape=False)
    form = "wide" if labels.long else "long"
    return "\n".join([f"{len(other):,} rows, {form}, in {target}", *labels.notes()])


def turn(labels: Frame) -> Frame:
    """Turn a table of labels into the other form, of the same library.

    Args:
        labels: Long or wide, of polars or pandas; identical duplicates are merged.

    Raises:
        UsageError: It is neither form, or contradicts itself.
    """
    other = _other(check_labels(labels))
    return other.to_pandas() if isinstance(labels, pd.DataFrame) else other


def _other(labels: Labels) -> pl.DataFrame:
    """The form that the source did not have."""
    other = labels.table.rename({"slice": "name"}) if labels.long else to_long(labels.table)
    return other.with_columns(pl.selectors.integer().cast(pl.Int64))  # as a CSV is read, by either library
