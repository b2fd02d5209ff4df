"""Label columns of any CSV: which words mean yes and no, and what a name of a study or slice refers to."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from rsna_seq.datasets.csv_file import ROW, CsvFile, open_csv, printable_names
from rsna_seq.errors import UsageError

_YES = ("1", "true", "yes", "y", "positive", "present")
_NO = ("0", "false", "no", "n", "negative", "absent")
_UNKNOWN = ("", "na", "n/a", "nan", "null", "none", "unknown", "?")
_SHOWN = 6


def read_columns(file: Path, columns: Mapping[str, str], optional: Iterable[str] = ()) -> CsvFile:
    """Open a CSV and check that it has the columns.

    Args:
        file: The CSV.
        columns: Name in the CSV, by our name.
        optional: Our names whose columns may be absent.

    Raises:
        UsageError: A column is absent, or the file is no CSV.
    """
    opened = open_csv(file, tuple(columns.values()))
    absent = [
        name for ours, name in columns.items() if name not in opened.columns and ours not in set(optional)
    ]
    if absent:
        found = printable_names(list(opened.columns))
        raise UsageError(f"{file}: has no column {', '.join(map(repr, absent))}; its columns are {found}")
    return opened


def answers(opened: CsvFile, columns: Mapping[str, str]) -> pl.DataFrame:
    """Convert label columns to 0, 1 or null.

    Args:
        opened: The CSV.
        columns: Column of the CSV, by class.

    Returns:
        ``row`` and an Int8 column per class.

    Raises:
        UsageError: A cell has none of the known words; the message names the lines.
    """
    table = opened.table
    words = {
        c: pl.col(name).fill_null("").str.strip_chars().str.to_lowercase().str.replace(r"^([01])\.0*$", "$1")
        for c, name in columns.items()
    }
    text = table.select(ROW, **words)
    known = (*_YES, *_NO, *_UNKNOWN)
    bad = (
        text.filter(~pl.all_horizontal(pl.col(c).is_in(known) for c in columns)) if columns else text.clear()
    )
    if len(bad):
        lines = opened.lines(bad[ROW].head(_SHOWN).to_list())
        where = ", ".join(str(lines.get(row, row)) for row in bad[ROW].head(_SHOWN))
        raise UsageError(
            f"{opened.name}: {len(bad):,} rows have a label that is not 0, 1, yes, no or empty: lines {where}"
        )
    return text.select(
        ROW,
        *(
            pl.when(pl.col(c).is_in(_YES)).then(1).when(pl.col(c).is_in(_NO)).then(0).cast(pl.Int8).alias(c)
            for c in columns
        ),
    )


def plain_name(name: str) -> str:
    """A name without case and marks between its parts: ``CQ500CT47`` and ``CQ500-CT-47`` are equal."""
    return re.sub(r"[^0-9a-z]", "", name.lower())
