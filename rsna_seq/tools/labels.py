"""``labels``: the competition's long label CSV to one wide row a slice, and back."""

from pathlib import Path
from typing import TypeVar

import pandas as pd
import polars as pl

from rsna_seq.label_csv import is_long, read_csv, read_labels, to_long
from rsna_seq.submission import write_csv

Frame = TypeVar("Frame", pl.DataFrame, pd.DataFrame)


def run(source: Path, target: Path) -> str:
    """Turn a label CSV into the other form.

    Args:
        source: Long (``ID,Label``) or wide (``name`` and six classes).
        target: Receives the other form.

    Returns:
        One line that says what was written.

    Raises:
        UsageError: The source is neither form, or contradicts itself.
    """
    other = turn(read_csv(source))
    write_csv(other, target)
    return f"{len(other):,} rows, {'long' if 'ID' in other.columns else 'wide'}, in {target}"


def turn(labels: Frame) -> Frame:
    """Turn a table of labels into the other form, of the same library.

    Args:
        labels: Long or wide, of polars or pandas; identical duplicates are merged.

    Raises:
        UsageError: It is neither form, or contradicts itself.
    """
    wide = read_labels(labels)
    other = wide.rename({"slice": "name"}) if is_long(list(labels.columns)) else to_long(wide)
    other = other.with_columns(pl.selectors.integer().cast(pl.Int64))  # as a CSV is read, by either library
    return other.to_pandas() if isinstance(labels, pd.DataFrame) else other
