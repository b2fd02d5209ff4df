"""Label files: long (``ID,Label``, six rows per image, as in the competition) and wide (one row per image).

1. A file is read as text (:mod:`rsna_seq.datasets.csv_file`); a polars or pandas table is used directly.
2. Long to wide: one part per class; in most files all parts contain the same images in the same order.
3. Checks: values are 0 or 1, all six rows exist, no contradictions, ``any`` is 1 if a class is 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rsna_seq.datasets.csv_file import ROW, CsvFile, open_csv, printable_names
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5
_NAMES = ("name", "slice", "image")
"""Accepted names of the column of a wide file that contains the SOPInstanceUID."""
_ANY = "any"
_KINDS = tuple(c for c in CLASSES if c != _ANY)


@dataclass(frozen=True)
class Labels:
    """Labels after reading and checking.

    Attributes:
        table: Column ``slice`` and six Int8 columns, one row per slice.
        long: Whether the source was in long format.
        fixed: Number of slices with ``any`` = 0 and a class = 1, where ``any`` was set to 1.
        any_alone: Number of slices with ``any`` = 1 and no class = 1; they are not changed.
    """

    table: pl.DataFrame
    long: bool
    fixed: int
    any_alone: int

    def notes(self) -> list[str]:
        """Sentences on what was changed or is unusual; empty if nothing is."""
        notes = [f"{self.fixed:,} slices had any = 0 and a class = 1; any was set to 1"]
        notes += [f"{self.any_alone:,} slices have any = 1 and no class = 1; they are not changed"]
        return [note for note, count in zip(notes, (self.fixed, self.any_alone), strict=True) if count]


@dataclass(frozen=True)
class _Source:
    """A table of labels and its source."""

    name: str
    table: pl.DataFrame
    file: CsvFile | None

    def refuse(self, found: pl.DataFrame, what: str, remedy: str = "") -> None:
        """Raise an error if there are faulty rows: the number of keys, the first few, and their lines.

        Args:
            found: The faulty rows: ``key``, and ``row`` in the source.
            what: What is wrong with the rows.
            remedy: What the user can do.

        Raises:
            UsageError: There is at least one faulty row.
        """
        if found.is_empty():
            return
        keys = found["key"].unique(maintain_order=True)
        first = found.unique("key", keep="first", maintain_order=True).head(_SHOWN + 1)
        lines = self.file.lines(first[ROW].to_list()) if self.file else {}
        shown = printable_names(
            [
                str(key) + (f" (line {lines[row]})" if row in lines else "")
                for key, row in first["key", ROW].rows()
            ]
        )
        raise UsageError(f"{self.name}: {len(keys):,} {what}: {shown}{remedy}")


def read_labels(source: "Path | pl.DataFrame | pd.DataFrame", *, fix_any: bool = False) -> pl.DataFrame:
    """Read labels, long or wide.

    Args:
        source: A CSV file, or a polars or pandas table with the same columns.
        fix_any: Set ``any`` to 1 if a class is 1, instead of refusing the labels.

    Returns:
        Column ``slice`` (SOPInstanceUID) and six Int8 columns, one row per slice, in the order of the source;
        identical duplicates are merged.

    Raises:
        UsageError: The source is in neither format, contains a label that is not 0 or 1, lacks some of an
            image's six rows, has different labels for one slice, or has ``any`` = 0 and a class = 1.
    """
    return check_labels(source, fix_any=fix_any).table


def check_labels(source: "Path | pl.DataFrame | pd.DataFrame", *, fix_any: bool = False) -> Labels:
    """Read labels as :func:`read_labels` does, and count unusual labels.

    Args:
        source: A CSV file, or a polars or pandas table with the same columns.
        fix_any: Set ``any`` to 1 if a class is 1, instead of refusing the labels.

    Raises:
        UsageError: As :func:`read_labels`.
    """
    file = open_csv(source, ("ID", "Label", *_NAMES, *CLASSES)) if isinstance(source, Path) else None
    columns = list(file.columns if file else source.columns)  # type: ignore[union-attr]
    name = file.name if file else "the table"
    long = is_long(columns)
    key = "ID" if long else next((k for k in _NAMES if k in columns), None)
    if key is None or not (long or set(CLASSES) <= set(columns)):
        raise UsageError(
            f"{name}: neither long (ID, Label) nor wide (name, {', '.join(CLASSES)}); its columns are "
            f"{printable_names([str(c) for c in columns])}"
        )
    table = file.table if file else _frame(source)  # type: ignore[arg-type]
    values = ["Label"] if long else list(CLASSES)
    numbered = table if file else table.with_row_index(ROW)
    named = numbered.select(ROW, *values, key=pl.col(key).cast(pl.String))
    if file and file.padded:
        named = named.with_columns(pl.col("key").str.strip_chars())
    at = _Source(name, named, file)
    if named.is_empty():
        raise UsageError(f"{name}: contains no labels")
    at.refuse(named.filter(pl.col("key").fill_null("") == ""), "rows have no image id")
    wide = _widen(at) if long else _checked(at, list(CLASSES)).rename({"key": "slice"})
    return _consistent(at, _unique(at, wide), long=long, fix_any=fix_any)


def to_long(wide: pl.DataFrame) -> pl.DataFrame:
    """Convert labels of :func:`read_labels` to long format: ``ID,Label``, six rows per image."""
    long = wide.with_row_index("at").unpivot(
        on=list(CLASSES), index=["at", "slice"], variable_name="class", value_name="Label"
    )
    rank = pl.col("class").replace_strict(list(CLASSES), range(len(CLASSES)), return_dtype=pl.Int8)
    ordered = long.sort("at", rank)
    return ordered.select(ID=pl.col("slice") + "_" + pl.col("class"), Label="Label")


def is_long(columns: list[str]) -> bool:
    """Whether these are the columns of the long format."""
    return {"ID", "Label"} <= set(columns)


def _frame(source: "pl.DataFrame | pd.DataFrame") -> pl.DataFrame:
    return source if isinstance(source, pl.DataFrame) else pl.from_pandas(source)


def _widen(at: _Source) -> pl.DataFrame:
    """Convert six rows per image to one: ``slice``, ``row`` and the six classes."""
    ends = {
        c: pl.col("key").str.ends_with(f"_{c}") & (pl.col("key").str.len_bytes() > len(c) + 1)
        for c in CLASSES
    }
    at.refuse(at.table.filter(~pl.any_horizontal(ends.values())), "ids do not have the form IMAGE_CLASS")
    table = _checked(at, ["Label"])
    parts = {
        c: table.filter(end).select(ROW, "Label", slice=pl.col("key").str.strip_suffix(f"_{c}"))
        for c, end in ends.items()
    }
    first = parts[CLASSES[0]]
    if all(part["slice"].equals(first["slice"]) for part in parts.values()):
        return first.select("slice", ROW).with_columns(part["Label"].alias(c) for c, part in parts.items())
    long = pl.concat(part.with_columns(kind=pl.lit(c)) for c, part in parts.items()).sort(ROW)
    _refuse_clash(at, long, ["slice", "kind"], ["Label"])
    wide = long.unique(["slice", "kind"], keep="first", maintain_order=True).pivot(
        on="kind", index="slice", values="Label", maintain_order=True
    )
    wide = wide.with_columns(pl.lit(None, pl.Int8).alias(c) for c in CLASSES if c not in wide.columns)
    wide = wide.join(long.group_by("slice").agg(pl.col(ROW).min()), on="slice", maintain_order="left")
    lacking = wide.filter(pl.any_horizontal(pl.col(c).is_null() for c in CLASSES))
    at.refuse(lacking.select(ROW, key="slice"), "images lack some of their six rows")
    return wide


def _checked(at: _Source, columns: list[str]) -> pl.DataFrame:
    """Convert the columns to Int8; refuse values other than 0 and 1, such as probabilities."""
    table = at.table
    usual = pl.all_horizontal(pl.col(columns).is_in(["0", "1"]).fill_null(value=False)).all()
    if all(table[c].dtype == pl.String for c in columns) and table.select(usual).item():
        return table.with_columns((pl.col(columns) == "1").cast(pl.Int8))
    text = [pl.col(c).str.strip_chars() if table[c].dtype == pl.String else pl.col(c) for c in columns]
    values = table.with_columns(t.cast(pl.Float64, strict=False) for t in text)
    good = pl.all_horizontal(pl.col(c).is_in([0.0, 1.0]).fill_null(value=False) for c in columns)
    at.refuse(values.filter(~good), "labels are not 0 or 1")
    return values.with_columns(pl.col(columns).cast(pl.Int8))


def _unique(at: _Source, wide: pl.DataFrame) -> pl.DataFrame:
    """Merge identical rows; refuse contradicting rows."""
    if not wide["slice"].is_duplicated().any():
        return wide
    _refuse_clash(at, wide, ["slice"], list(CLASSES))
    return wide.unique("slice", keep="first", maintain_order=True)


def _refuse_clash(at: _Source, table: pl.DataFrame, key: list[str], values: list[str]) -> None:
    """Refuse rows with equal keys and different values."""
    merged = table.unique([*key, *values], keep="first", maintain_order=True)
    clash = merged.filter(~pl.struct(key).is_first_distinct())
    at.refuse(clash.select(ROW, key="slice"), "slices have conflicting labels")


def _consistent(at: _Source, wide: pl.DataFrame, *, long: bool, fix_any: bool) -> Labels:
    """Check that ``any`` is 1 if one of the classes is 1, or set it."""
    highest = pl.max_horizontal(_KINDS)
    below = wide.filter(highest > pl.col(_ANY))
    if not fix_any:
        at.refuse(
            below.select(ROW, key="slice"),
            "slices have any = 0 and a class = 1",
            "; correct the file, or set any to 1 there with index.fix_any=true (labels --fix-any)",
        )
    alone = len(wide.filter(highest < pl.col(_ANY)))
    fixed = wide.with_columns(pl.max_horizontal(CLASSES).alias(_ANY)) if len(below) else wide
    return Labels(fixed.select("slice", *CLASSES), long, len(below), alone)
