"""Tiny caches and runs with labels of slices, of whole studies, and of some classes only."""

from pathlib import Path

import polars as pl
from builders import replace_table, tiny_cache

from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import load_manifest
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import digest_file
from rsna_seq.store.tables import (
    SLABS,
    SLICES,
    STUDY_LABELS,
    STUDY_LABELS_FILE,
    Schema,
    read_table,
    write_table,
)


def weak_cache(folder: Path, *, weak: int = 6, studies: int = 12, folds: int = 2) -> Path:
    """A finished ``2_cache``: the last ``weak`` studies are labelled as a whole."""
    tiny_cache(folder, studies=studies, folds=folds)
    label_whole(folder.parent, weak)
    return folder


def label_whole(run: Path, studies: int) -> None:
    """Label the last studies of a run as a whole: a class is 0 in every slice, or unknown in every slice."""
    slabs = PixelCache(run / "2_cache").slabs
    mine = pl.col("study").is_in(slabs["study"].unique().sort().tail(studies).implode())
    table = slabs.filter(mine).group_by("study", maintain_order=True).agg(pl.col(c).max() for c in CLASSES)
    for file, schema in _tables(run):
        unknown = {c: mine & (pl.col(c).max().over("study") == 1) for c in CLASSES}
        hidden = (pl.when(unknown[c]).then(None).otherwise(c).alias(c) for c in CLASSES)
        replace_table(read_table(file, schema).with_columns(hidden), file, schema)
    write_table(table, run / "2_cache" / STUDY_LABELS_FILE, STUDY_LABELS)
    known = load_manifest(run / "2_cache")
    files = known.files | {STUDY_LABELS_FILE: digest_file(run / "2_cache" / STUDY_LABELS_FILE)}
    write_json(
        run / "2_cache" / "manifest.json", known.model_copy(update={"files": files}).sealed().model_dump()
    )


def without_classes(run: Path, *absent: str) -> None:
    """Remove all labels of some classes from a run."""
    for file, schema in _tables(run):
        rows = read_table(file, schema).with_columns(pl.lit(None, pl.Int8).alias(c) for c in absent)
        replace_table(rows, file, schema)


def _tables(run: Path) -> list[tuple[Path, Schema]]:
    """Tables of a run with labels of slices."""
    tables = [(run / "2_cache" / "slabs.parquet", SLABS), (run / "1_index" / "slices.parquet", SLICES)]
    return [(file, schema) for file, schema in tables if file.is_file()]
