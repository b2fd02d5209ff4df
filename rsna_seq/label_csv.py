"""The competition's label file: long (``ID,Label``, six rows an image) and wide (one row an image)."""

from pathlib import Path

import polars as pl

from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES

_SHOWN = 5


def read_labels(source: Path | pl.DataFrame) -> pl.DataFrame:
    """Read labels, long or wide.

    Args:
        source: A CSV file, or such a table.

    Returns:
        Column ``slice`` (SOPInstanceUID) and six Int8 columns, one row a slice, in the order of the source.

    Raises:
        UsageError: The file is neither form, or names one slice twice with different labels.
    """
    table = source if isinstance(source, pl.DataFrame) else _read_csv(source)
    name = "the table" if isinstance(source, pl.DataFrame) else str(source)
    if {"ID", "Label"} <= set(table.columns):
        return _widen(table, name)
    key = next((k for k in ("name", "slice", "image") if k in table.columns), None)
    if key is None or not set(CLASSES) <= set(table.columns):
        raise UsageError(f"{name}: neither long (ID, Label) nor wide (name, {', '.join(CLASSES)})")
    wide = table.select(pl.col(key).alias("slice"), *(pl.col(c).cast(pl.Int8) for c in CLASSES))
    return _unique(wide, ["slice"], name)


def to_long(wide: pl.DataFrame) -> pl.DataFrame:
    """Turn labels of :func:`read_labels` back into ``ID,Label``, six rows an image."""
    long = wide.with_row_index("at").unpivot(
        on=list(CLASSES), index=["at", "slice"], variable_name="class", value_name="Label"
    )
    rank = pl.col("class").replace_strict(list(CLASSES), range(len(CLASSES)), return_dtype=pl.Int8)
    ordered = long.sort("at", rank)
    return ordered.select(ID=pl.col("slice") + "_" + pl.col("class"), Label="Label")


def _read_csv(file: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(file, infer_schema_length=10_000)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{file}: not readable as CSV: {error}") from error


def _widen(table: pl.DataFrame, name: str) -> pl.DataFrame:
    long = table.select(
        slice=pl.col("ID").cast(pl.String).str.extract(r"^(.*)_[^_]*$", 1),
        kind=pl.col("ID").cast(pl.String).str.extract(r"_([^_]*)$", 1),
        Label=pl.col("Label").cast(pl.Int8),
    )
    unknown = long.filter(~pl.col("kind").is_in(list(CLASSES)))
    if len(unknown):
        raise UsageError(f"{name}: {len(unknown)} ids name no class, first {table['ID'][0]!r}")
    long = _unique(long, ["slice", "kind"], name)
    wide = long.pivot(on="kind", index="slice", values="Label", maintain_order=True)
    missing = [c for c in CLASSES if c not in wide.columns]
    incomplete = wide.filter(pl.any_horizontal(pl.all().is_null()))
    if missing or len(incomplete):
        raise UsageError(f"{name}: {len(incomplete)} images lack some of their six rows {missing or ''}")
    return wide.select("slice", *CLASSES)


def _unique(table: pl.DataFrame, key: list[str], name: str) -> pl.DataFrame:
    """Merge identical rows; refuse rows that contradict each other."""
    merged = table.unique(maintain_order=True)
    clash = merged.filter(pl.struct(key).is_duplicated())["slice"].unique(maintain_order=True)
    if len(clash):
        shown = ", ".join(clash.head(_SHOWN))
        raise UsageError(f"{name}: {len(clash)} slices are labelled twice, differently: {shown}")
    return merged
