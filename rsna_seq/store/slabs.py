"""Decoded passes as rows of SLABS; one table per shard, since a table per pass would take much longer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.console import say
from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.tables import SLABS, STUDY_LABELS, STUDY_LABELS_FILE, check, read_table, write_table


@dataclass(frozen=True)
class DecodedPass:
    """The decoded part of one pass of a study.

    Attributes:
        slices: Rows of SLICES, all that were requested.
        kept: Indices of those that were decoded.
        hu: (slab, y, x) HU; None if nothing was decoded.
        numbers: (kept,) slab of each slice, from 0.
        hashes: (kept,) ``imaging.pixels.pixel_hash`` of each.
        square: The crop in pixels: left, top, side.
        excluded: Rows of QUARANTINE for the others.
        unwrapped: (kept,) whether a 12-bit wrap was corrected.
        brain_hu: Mode of brain tissue before the shift; None if unknown.
        hu_shift: HU that were added to the pass.
    """

    slices: pl.DataFrame
    kept: list[int] = field(default_factory=list)
    hu: NDArray[np.int16] | None = None
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    hashes: list[str | None] = field(default_factory=list)
    square: tuple[int, int, int] = (0, 0, 0)
    excluded: list[dict[str, object]] = field(default_factory=list)
    unwrapped: list[bool] = field(default_factory=list)
    brain_hu: float | None = None
    hu_shift: int = 0


def slab_table(passes: Sequence[DecodedPass], shard: int = 0) -> pl.DataFrame:
    """Make the SLABS table of passes that are stored one after another in one array.

    Args:
        passes: In the array's order.
        shard: Number of the array.
    """
    if not any(part.kept for part in passes):
        return pl.DataFrame(schema=dict(SLABS))
    slabs = _slices(passes).group_by("study", "slab", maintain_order=True)
    table = slabs.agg(
        pl.col("patient", "fold", "cross_fold", "x0", "y0", "side", "brain_hu", "hu_shift").first(),
        pl.col("z_mm").mean(),
        pl.col("slice").alias("slices"),
        pl.col("hash").alias("hashes"),
        pl.col("unwrapped").sum().cast(pl.Int32),
        *(pl.col(c).max() for c in CLASSES),
    )
    gap = pl.col("z_mm").diff()
    table = table.with_columns(
        gap_below_mm=gap.over("study"),
        gap_above_mm=gap.shift(-1).over("study"),
        shard=pl.lit(shard, pl.Int32),
        row=pl.int_range(pl.len(), dtype=pl.Int64),
    )
    return check(table, SLABS, "slabs")


def _slices(passes: Sequence[DecodedPass]) -> pl.DataFrame:
    """The decoded slices of all passes with their slabs; each pass counts as a study."""
    everything = pl.concat([part.slices for part in passes])
    starts = np.cumsum([0, *(len(part.slices) for part in passes)])
    kept = [start + i for start, part in zip(starts, passes, strict=False) for i in part.kept]
    lengths = [len(s.kept) for s in passes]
    squares = np.repeat([s.square for s in passes], lengths, axis=0).astype(np.int32)
    modes = np.repeat([np.nan if s.brain_hu is None else s.brain_hu for s in passes], lengths)
    rows = everything if len(kept) == len(everything) else everything[kept]
    return rows.with_columns(
        study=_study_of_pass(),
        slab=pl.Series(np.concatenate([s.numbers for s in passes]), dtype=pl.Int32),
        unwrapped=pl.Series([u for s in passes for u in s.unwrapped], dtype=pl.Boolean),
        hash=pl.Series([h for s in passes for h in s.hashes], dtype=pl.String),
        x0=squares[:, 0],
        y0=squares[:, 1],
        side=squares[:, 2],
        brain_hu=pl.Series(modes, dtype=pl.Float64, nan_to_null=True),
        hu_shift=np.repeat(np.array([s.hu_shift for s in passes], dtype=np.int32), lengths),
    )


def _study_of_pass() -> pl.Expr:
    """Name each pass as a study; no two passes get the same name.

    The second pass of ``UID`` is ``UID/2``. If the UID of a study itself has such an ending, the number is
    always added: the first pass of the study ``UID/2`` is ``UID/2/1``.
    """
    numbered = (pl.col("pass") > 0) | pl.col("study").str.contains(r"/\d+$")
    number = (pl.col("pass") + 1).cast(pl.String)
    return pl.when(numbered).then(pl.col("study") + "/" + number).otherwise("study")


def pass_on_study_labels(index: Artifact, slices: pl.DataFrame, out: Path) -> None:
    """Write the labels of whole studies for the learned stages, one row for each pass, if there are any.

    Args:
        index: The artefact of ``index``.
        slices: SLICES.
        out: Folder of the cache.
    """
    if STUDY_LABELS_FILE not in index.manifest.files:
        return
    labels = read_table(index.file(STUDY_LABELS_FILE), STUDY_LABELS)
    passes = slices.select("study", "pass").unique(maintain_order=True).with_columns(name=_study_of_pass())
    named = passes.join(labels, on="study", how="inner", maintain_order="left")
    table = named.with_columns(study="name").select(list(STUDY_LABELS))
    write_table(table, out / STUDY_LABELS_FILE, STUDY_LABELS)


def report_wraps(slices: pl.DataFrame, corrected: int, excluded: pl.DataFrame) -> dict[str, int]:
    """Print how many 12-bit wraps were corrected, and how many were suspected but not corrected.

    Args:
        slices: SLICES that were requested.
        corrected: Number of them that were corrected.
        excluded: QUARANTINE of those that could not be decoded.

    Returns:
        The counts that are not zero, for the manifest.
    """
    suspected = slices.filter(pl.col("flags").str.contains(r"\bwrap_suspected\b"))
    left = len(suspected.join(excluded, on=["file", "slice"], how="anti")) - corrected
    if corrected:
        say("", f"{corrected:,} slices: a 12-bit wrap was proven by the pixel values and corrected")
    if left:
        say("", f"{left:,} slices: a 12-bit wrap is possible by the header, but not proven; not corrected")
    counts = {"12-bit wraps corrected": corrected, "12-bit wraps suspected only": left}
    return {what: count for what, count in counts.items() if count}


def report_brain_modes(slabs: pl.DataFrame) -> dict[str, int]:
    """Print the range of the measured modes of brain tissue, and how many passes were shifted.

    Args:
        slabs: SLABS, or its columns ``study``, ``brain_hu`` and ``hu_shift``.

    Returns:
        The counts that are not zero, for the manifest; none where no mode was measured.
    """
    passes = slabs.group_by("study").agg(pl.col("brain_hu", "hu_shift").first())
    modes = passes["brain_hu"].drop_nulls()
    if modes.is_empty():
        return {}
    shifted, unknown = int((passes["hu_shift"] != 0).sum()), passes["brain_hu"].null_count()
    low, middle, high = (float(modes.quantile(q, "nearest") or 0) for q in (0, 0.5, 1))
    say("", f"mode of brain tissue: {low:.0f} to {high:.0f} HU, median {middle:.0f}; {shifted:,} shifted")
    if unknown:
        say("", f"{unknown:,} studies have too little brain to measure its mode; not shifted")
    counts = {"studies shifted in HU": shifted, "studies without brain mode": unknown}
    return {what: count for what, count in counts.items() if count}
