"""The competition's label file: long (``ID,Label``, six rows an image) and wide (one row an image)."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5
_NAMES = ("name", "slice", "image")
"""What the column of a wide file may be called that names the slice."""


def read_labels(source: "Path | pl.DataFrame | pd.DataFrame") -> pl.DataFrame:
    """Read labels, long or wide.

    Args:
        source: A CSV file, or such a table of polars or pandas.

    Returns:
        Column ``slice`` (SOPInstanceUID) and six Int8 columns, one row a slice, in the order of the source;
        identical duplicates are merged.

    Raises:
        UsageError: The source is neither form, holds a label that is not 0 or 1, lacks some of an image's
            six rows, or names one slice twice with different labels.
    """
    name = str(source) if isinstance(source, Path) else "the table"
    table = read_csv(source) if isinstance(source, Path) else source
    if not isinstance(table, pl.DataFrame):
        table = pl.from_pandas(table)
    if is_long(table.columns):
        return _widen(table.select(pl.col("ID").cast(pl.String), "Label"), name)
    key = next((k for k in _NAMES if k in table.columns), None)
    if key is None or not set(CLASSES) <= set(table.columns):
        raise UsageError(f"{name}: neither long (ID, Label) nor wide (name, {', '.join(CLASSES)})")
    wide = table.select(pl.col(key).cast(pl.String).alias("slice"), *CLASSES)
    return _unique(_checked(wide, list(CLASSES), "slice", name), ["slice"], name)


def to_long(wide: pl.DataFrame) -> pl.DataFrame:
    """Turn labels of :func:`read_labels` back into ``ID,Label``, six rows an image."""
    long = wide.with_row_index("at").unpivot(
        on=list(CLASSES), index=["at", "slice"], variable_name="class", value_name="Label"
    )
    rank = pl.col("class").replace_strict(list(CLASSES), range(len(CLASSES)), return_dtype=pl.Int8)
    ordered = long.sort("at", rank)
    return ordered.select(ID=pl.col("slice") + "_" + pl.col("class"), Label="Label")


def is_long(columns: list[str]) -> bool:
    """Whether these are the columns of the long form."""
    return {"ID", "Label"} <= set(columns)


def read_csv(file: Path) -> pl.DataFrame:
    """Read a label CSV as it stands; names stay text, even where all are digits.

    Raises:
        UsageError: It is not readable as CSV.
    """
    try:
        columns = pl.read_csv(file, n_rows=0).columns
        names = {c: pl.String for c in columns if c in ("ID", *_NAMES)}
        return pl.read_csv(file, infer_schema_length=10_000, schema_overrides=names)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{file}: not readable as CSV: {error}") from error


def _widen(table: pl.DataFrame, name: str) -> pl.DataFrame:
    split = [pl.col("ID").str.extract(rf"(?s)^(.+)_({'|'.join(CLASSES)})$", i) for i in (1, 2)]
    long = table.with_columns(slice=split[0], kind=split[1])
    _refuse(long.filter(pl.col("kind").is_null())["ID"], "ids are not IMAGE_CLASS", name)
    long = _checked(long, ["Label"], "ID", name).select("slice", "kind", "Label")
    wide = _unique(long, ["slice", "kind"], name).pivot(
        on="kind", index="slice", values="Label", maintain_order=True
    )
    absent = [pl.lit(None, pl.Int8).alias(c) for c in CLASSES if c not in wide.columns]
    wide = wide.with_columns(absent).select("slice", *CLASSES)
    lacking = wide.filter(pl.any_horizontal(pl.col(c).is_null() for c in CLASSES))["slice"]
    _refuse(lacking, "images lack some of their six rows", name)
    return wide


def _checked(table: pl.DataFrame, columns: list[str], key: str, name: str) -> pl.DataFrame:
    """The columns as Int8, every value 0 or 1: a probability is no label, and is not rounded to one."""
    values = table.with_columns(pl.col(columns).cast(pl.Float64, strict=False))
    sound = pl.all_horizontal(pl.col(c).is_in([0.0, 1.0]).fill_null(value=False) for c in columns)
    _refuse(values.filter(~sound)[key], "labels are not 0 or 1", name)
    return values.with_columns(pl.col(columns).cast(pl.Int8))


def _unique(table: pl.DataFrame, key: list[str], name: str) -> pl.DataFrame:
    """Merge identical rows; refuse rows that contradict each other."""
    merged = table.unique(maintain_order=True)
    clash = merged.filter(pl.struct(key).is_duplicated())["slice"]
    _refuse(clash, "slices are labelled twice, differently", name)
    return merged


def _refuse(found: pl.Series, what: str, name: str) -> None:
    """Raise where anything was found, naming the first few."""
    found = found.unique(maintain_order=True)
    if len(found):
        shown = ", ".join(str(v) for v in found.head(_SHOWN))
        more = ", ..." if len(found) > _SHOWN else ""
        raise UsageError(f"{name}: {len(found):,} {what}: {shown}{more}")
