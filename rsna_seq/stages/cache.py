"""``cache``: pixels decoded once, in Hounsfield units.

1. :func:`apply`, one study: stored values -> HU -> the square around the head -> ``size`` by area -> slabs.
2. :func:`run`: all studies, in parallel, into shards ``shard_0000.npy`` (row, y, x) int16, study after study,
   slices in order; ``slabs.parquet`` says which row is what.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.artifacts import Key, Manifest, Receipt, atomic_path, ensure, read_manifest
from rsna_seq.config import CacheConfig
from rsna_seq.console import progress
from rsna_seq.errors import NothingUsableError
from rsna_seq.imaging.head import crop_resize, head_square, slab_numbers
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.provenance import source_digest
from rsna_seq.reasons import SetAsideError
from rsna_seq.tables import QUARANTINE, SLABS, SLICES, check, from_rows, read_table, write_table
from rsna_seq.workers import spread_over

_IN_PROCESS = 16
"""Fewer studies than this are decoded in this process: starting others takes longer."""


@dataclass(frozen=True)
class Read:
    """One study as the networks see it.

    Attributes:
        volume: The study; None where no slice could be read.
        slabs: SLABS; shard 0, rows from 0.
        set_aside: Rows of QUARANTINE for slices whose pixels could not be read.
    """

    volume: Volume | None
    slabs: pl.DataFrame
    set_aside: list[dict[str, object]]


def run(
    cfg: CacheConfig,
    index: Path,
    root: Path,
    out: Path,
    *,
    workers: int = 1,
    limit: int | None = None,
    rebuild: bool = False,
) -> Manifest:
    """Decode every indexed study.

    Args:
        cfg: Size, crop, slabs, shards.
        index: The folder ``1_index``.
        root: Folder that the index's paths are relative to.
        out: The folder ``2_cache``.
        workers: Processes that decode.
        limit: Only so many studies.
        rebuild: Decode anew what is there.

    Raises:
        NothingUsableError: No slice could be decoded.
    """
    inputs = {"index": read_manifest(index).content}
    key = Key("cache", {**cfg.model_dump(mode="json"), "limit": limit}, inputs, source_digest(__name__))

    def build(folder: Path) -> Receipt:
        slices = read_table(index / "slices.parquet", SLICES)
        if limit is not None:
            slices = slices.filter(pl.col("study").rank("dense") <= limit)
        return _build(cfg, slices, root, folder, workers)

    return ensure(out, key, build, rebuild=rebuild)


def apply(slices: pl.DataFrame, root: Path, cfg: CacheConfig) -> Read:
    """Decode one study; the result depends on nothing but its slices and the config.

    Args:
        slices: Rows of SLICES of one study, in order.
        root: Folder that their paths are relative to.
        cfg: Size, crop, slabs.
    """
    pixels, kept, aside = [], [], []
    for i, row in enumerate(slices.iter_rows(named=True)):
        try:
            pixels.append(read_hu(root / row["file"], row))
            kept.append(i)
        except SetAsideError as error:
            error.study, error.slice, error.z_mm = row["study"], row["slice"], row["z_mm"]
            aside.append(error.row(row["file"]))
    if not pixels:
        return Read(None, pl.DataFrame(schema=dict(SLABS)), aside)
    rows = slices[kept]
    prepared, numbers, square = prepare(pixels, rows["z_mm"].to_numpy(), cfg)
    slabs = _slab_table(rows, numbers, square)
    return Read(Volume(str(rows["study"][0]), prepared, slabs["z_mm"].to_numpy()), slabs, aside)


def prepare(
    pixels: list[NDArray[np.int16]], z_mm: NDArray[np.float64], cfg: CacheConfig
) -> tuple[NDArray[np.int16], NDArray[np.int64], tuple[int, int, int]]:
    """Crop, resize and average one study.

    Args:
        pixels: (y, x) HU of each slice, lowest first.
        z_mm: (slice,) positions, rising.
        cfg: Size, crop, slabs.

    Returns:
        (slab, size, size) HU; (slice,) the slab of each slice; the square in pixels: left, top, side.
    """
    shape = max(p.shape for p in pixels)
    same = np.stack([p for p in pixels if p.shape == shape])
    square = head_square(same) if cfg.crop else (0, 0, max(shape))
    resized = np.stack([crop_resize(p, _scaled(square, p.shape, shape), cfg.size) for p in pixels])
    numbers = slab_numbers(z_mm, slab_mm=cfg.slab_mm, thin_mm=cfg.thin_mm)
    if len(numbers) and numbers[-1] + 1 < len(numbers):
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        counts = np.diff(np.append(starts, len(numbers)))
        total = np.add.reduceat(resized.astype(np.int32), starts, axis=0)
        resized = np.rint(total / counts[:, None, None]).astype(np.int16)
    return resized, numbers, square


def _scaled(
    square: tuple[int, int, int], shape: tuple[int, ...], reference: tuple[int, ...]
) -> tuple[int, int, int]:
    """The same square in a slice of another matrix."""
    if shape == reference:
        return square
    factor = shape[0] / reference[0]
    return round(square[0] * factor), round(square[1] * factor), max(1, round(square[2] * factor))


def _slab_table(rows: pl.DataFrame, numbers: NDArray[np.int64], square: tuple[int, int, int]) -> pl.DataFrame:
    """SLABS of one study."""
    grouped = rows.with_columns(slab=pl.Series(numbers, dtype=pl.Int32)).group_by("slab", maintain_order=True)
    slabs = grouped.agg(
        pl.col("study", "patient", "fold", "cross_fold").first(),
        pl.col("z_mm").mean(),
        pl.col("slice").alias("slices"),
        *(pl.col(c).max() for c in CLASSES),
    )
    gap = pl.col("z_mm").diff()
    slabs = slabs.with_columns(
        gap_below_mm=gap,
        gap_above_mm=gap.shift(-1),
        shard=pl.lit(0, pl.Int32),
        row=pl.int_range(pl.len(), dtype=pl.Int64),
        x0=pl.lit(square[0], pl.Int32),
        y0=pl.lit(square[1], pl.Int32),
        side=pl.lit(square[2], pl.Int32),
    )
    return check(slabs, SLABS, "slabs")


def _build(cfg: CacheConfig, slices: pl.DataFrame, root: Path, out: Path, workers: int) -> Receipt:
    """Decode study after study into shards."""
    studies = [rows for _, rows in slices.group_by("study", maintain_order=True)]
    tables, aside = [pl.DataFrame(schema=dict(SLABS))], []
    with progress("cache", len(studies)) as advance:
        reads = spread_over(functools.partial(apply, root=root, cfg=cfg), studies, workers, least=_IN_PROCESS)
        for number, lot in enumerate(_shards(studies, cfg.shard_slices)):
            mine = itertools.islice(reads, len(lot))
            for read in _write_shard(mine, out / f"shard_{number:04d}.npy", sum(map(len, lot)), cfg.size):
                aside += read.set_aside
                tables.append(read.slabs.with_columns(shard=pl.lit(number, pl.Int32)))
                advance(1)
    slabs = pl.concat(tables)
    if slabs.is_empty():
        raise NothingUsableError(f"cache: no slice of {len(slices):,} could be decoded")
    write_table(slabs, out / "slabs.parquet", SLABS)
    quarantine = from_rows(aside, QUARANTINE)
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    counts = {"slices": slices.height - len(aside), "studies": slabs["study"].n_unique()}
    return Receipt(counts, dict(quarantine.group_by("reason").len().rows()))


def _write_shard(reads: Iterator[Read], path: Path, rows: int, size: int) -> Iterator[Read]:
    """Write studies one after the other into an array of so many rows; each comes back with its own."""
    with atomic_path(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.int16, (rows, size, size))
        at = 0
        for read in reads:
            if read.volume is not None:
                array[at : at + len(read.volume)] = read.volume.hu
            yield replace(read, volume=None, slabs=read.slabs.with_columns(row=pl.col("row") + at))
            at += len(read.slabs)
        array.flush()


def _shards(studies: list[pl.DataFrame], slices: int) -> Iterator[list[pl.DataFrame]]:
    """Studies in lots of about so many slices; none is split."""
    lot: list[pl.DataFrame] = []
    for rows in studies:
        lot.append(rows)
        if sum(map(len, lot)) >= slices:
            yield lot
            lot = []
    if lot:
        yield lot
