"""Imports of miniature sets in tests, and their tables as plain rows."""

from pathlib import Path

import polars as pl

from rsna_seq.config import load_config
from rsna_seq.datasets.imported import ImportedSet, read_set
from rsna_seq.labels import CLASSES
from rsna_seq.tools import import_set


def imported(dataset: str, source: Path, *words: str) -> ImportedSet:
    out = source.parent / f"imported_{source.name}"
    import_set.run(dataset, source, out, load_config(None, [*words, "workers=1"]), rebuild=True)
    return read_set(out)


def labels_of(made: ImportedSet) -> dict[str, str]:
    """Labels by slice, or by study for those of the whole study: six characters, ``.`` where unknown.

    In the order of CLASSES: epidural, intraparenchymal, intraventricular, subarachnoid, subdural, any.
    """
    text = pl.concat_str([pl.col(c).cast(pl.String).fill_null(".") for c in CLASSES])
    table = made.labels.select(key=pl.coalesce("slice", "study"), text=text)
    return dict(table.rows())
