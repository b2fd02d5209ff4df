"""A tiny cache with labels of slices, of whole studies, and of some classes only."""

from pathlib import Path

import polars as pl
from builders import replace_table, tiny_cache

from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import load_manifest
from rsna_seq.store.files import write_json
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import digest_file
from rsna_seq.store.tables import SLABS, STUDY_LABELS, STUDY_LABELS_FILE, write_table


def weak_cache(folder: Path, *, weak: int = 6, studies: int = 12, folds: int = 2) -> Path:
    """A finished ``2_cache``: the last ``weak`` studies are labelled as a whole."""
    tiny_cache(folder, studies=studies, folds=folds)
    slabs = PixelCache(folder).slabs
    mine = pl.col("study").is_in(slabs["study"].unique().sort().tail(weak).implode())
    table = slabs.filter(mine).group_by("study", maintain_order=True).agg(pl.col(c).max() for c in CLASSES)
    write_table(table, folder / STUDY_LABELS_FILE, STUDY_LABELS)
    hidden = (
        pl.when(mine & (pl.col(c).max().over("study") == 1)).then(None).otherwise(c).alias(c) for c in CLASSES
    )
    replace_table(slabs.with_columns(hidden), folder / "slabs.parquet", SLABS)
    known = load_manifest(folder)
    files = known.files | {STUDY_LABELS_FILE: digest_file(folder / STUDY_LABELS_FILE)}
    write_json(folder / "manifest.json", known.model_copy(update={"files": files}).sealed().model_dump())
    return folder


def without_classes(folder: Path, *absent: str) -> Path:
    """Remove all labels of some classes from a cache."""
    slabs = PixelCache(folder).slabs
    replace_table(slabs.with_columns(pl.lit(None, pl.Int8).alias(c) for c in absent), folder / "slabs.parquet", SLABS)
    return folder
