"""``cache``: pixels decoded once, in Hounsfield units.

1. :func:`apply`, one pass of a study: stored values -> HU -> the square around the head -> resized to
   ``size`` by area -> slabs -> the mode of brain tissue shifted to ``brain_hu``.
2. :func:`run`: all studies, in parallel, into shards (:mod:`rsna_seq.store.shards`); ``slabs.parquet`` holds
   one row per slab.
"""

import functools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.config import CacheConfig
from rsna_seq.console import progress, say
from rsna_seq.context import Context
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.frame_limits import frames_to_refuse
from rsna_seq.imaging.pixels import PixelBuffer, pixel_hash, read_pixels, series_is_wrapped
from rsna_seq.imaging.prepare import prepare
from rsna_seq.imaging.sources import must_exist, root_of
from rsna_seq.imaging.volume import Volume
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import ensure
from rsna_seq.store.outputs import own_files
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.shards import SHARD_FILES, Filled, Shard, fill_shard, keep_shard, shards_of, with_labels
from rsna_seq.store.slabs import DecodedPass, report_brain_modes, report_wraps, slab_table
from rsna_seq.store.tables import (
    QUARANTINE,
    SLABS,
    SLICES,
    nothing_usable,
    read_table,
    report_exclusions,
    write_table,
)

_SPARE_BYTES = 64 << 20

_BUFFER = PixelBuffer()
Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Read:
    """One pass of a study as the networks see it.

    Attributes:
        volume: The pass; None where no slice could be read.
        slabs: SLABS; shard 0, rows from 0.
        excluded: Rows of QUARANTINE for slices whose pixels could not be read.
    """

    volume: Volume | None
    slabs: pl.DataFrame
    excluded: Rows


def run(cfg: CacheConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Decode every indexed study.

    Args:
        cfg: Size, crop, slabs, shards.
        ctx: Data, workers, limit.
        run: Has ``1_index``; receives ``2_cache``.

    Raises:
        UsageError: The data root does not exist.
        NothingUsableError: No slice could be decoded; ``quarantine.parquet`` contains the reasons.
        EnvironmentFaultError: The disk is too small, or a codec is missing.
    """
    index, root = open_artifact(run["index"]), ctx.data.root
    config = {**cfg.model_dump(mode="json"), "limit": ctx.limit}
    key = Key("cache", config, {"index": index.manifest.content}, source_digest(__name__))

    def build(folder: Path) -> BuildSummary:
        must_exist(root, "data.root")
        slices = read_table(index.file("slices.parquet"), SLICES)
        if ctx.limit is not None:
            slices = slices.filter(pl.col("study").rank("dense") <= ctx.limit)
        return _build(cfg, slices, root_of(root), folder, ctx.workers, key.source)

    return ensure(run["cache"], key, build, rebuild=ctx.rebuild, piecewise=True, sources=[root])


def split_by_pass(slices: pl.DataFrame) -> list[pl.DataFrame]:
    """Cut ordered slices into what is read as one volume: a study, or each of its passes.

    Args:
        slices: SLICES.
    """
    return [part for _, part in slices.group_by("study", "pass", maintain_order=True)]


def apply(slices: pl.DataFrame, root: Path, cfg: CacheConfig) -> Read:
    """Decode one pass; the result depends on nothing but its slices and the config.

    Args:
        slices: Rows of SLICES of one study and pass, in order.
        root: Folder that their paths are relative to.
        cfg: Size, crop, slabs.
    """
    part = _decode(slices, root, cfg)
    if part.hu is None:
        return Read(None, slab_table([]), part.excluded)
    slabs = slab_table([part])
    return Read(Volume(str(slabs["study"][0]), part.hu, slabs["z_mm"].to_numpy()), slabs, part.excluded)


def _decode(slices: pl.DataFrame, root: Path, cfg: CacheConfig) -> DecodedPass:
    """Decode one pass, without its table."""
    pixels, kept, unwrapped, aside = [], [], [], []
    refused, folder, rows = frames_to_refuse(slices), os.fspath(root), slices.rows(named=True)
    read = [(row["rows"], row["columns"]) for i, row in enumerate(rows) if i not in refused]
    room, wrapped = iter(_memory_for(read)), series_is_wrapped(folder, rows)
    for i, row in enumerate(rows):
        try:
            if i in refused:
                raise refused[i]
            path = os.path.join(folder, row["file"])  # noqa: PTH118
            hu, corrected = read_pixels(path, row, next(room), wrapped_series=wrapped)
            pixels.append(hu)
            unwrapped.append(corrected)
            kept.append(i)
        except ExclusionError as error:
            aside.append(_excluded(error, row))
    if not pixels:
        return DecodedPass(slices, excluded=aside)
    ready = prepare(pixels, slices["z_mm"].to_numpy()[kept], cfg)
    hashes = [pixel_hash(hu) for hu in pixels]
    return DecodedPass(
        slices, kept, ready.hu, ready.numbers, hashes, ready.square, aside, unwrapped, ready.brain_hu,
        ready.hu_shift,
    )  # fmt: skip


def _memory_for(shapes: list[tuple[int, int]]) -> list[NDArray[np.int16]]:
    """One array for each slice of a pass."""
    try:
        return _BUFFER.take(shapes) if shapes else []
    except MemoryError as error:
        wanted = sum(2 * rows * columns for rows, columns in shapes) / 1e9
        raise EnvironmentFaultError(
            f"cache: there is not enough memory for the {wanted:,.1f} GB of pixels of one study; "
            "free memory, or use fewer workers"
        ) from error


def _excluded(error: ExclusionError, row: dict[str, object]) -> dict[str, object]:
    """The row of QUARANTINE of an indexed slice."""
    return error.row(str(row["file"])) | {"study": row["study"], "slice": row["slice"], "z_mm": row["z_mm"]}


def _build(
    cfg: CacheConfig, slices: pl.DataFrame, root: Path, out: Path, workers: int, source: str
) -> BuildSummary:
    """Decode pass after pass into shards; a shard that is there and sound stays."""
    shards, own = shards_of(split_by_pass(slices), cfg, source), own_files()
    filled = {shard.number: kept for shard in shards if (kept := keep_shard(shard, out)) is not None}
    todo = [shard for shard in shards if shard.number not in filled]
    if filled and todo:
        say("cache", f"{len(filled):,} of {len(shards):,} shards are sound and stay")
    _must_fit(sum(shard.slices for shard in todo) * cfg.size**2 * 2, out)
    wanted = {shard.file(out, kind).name for shard in shards for kind in SHARD_FILES}
    own.discard(keep=wanted)
    own.claim(*sorted(wanted))
    work = functools.partial(_fill, root=root, cfg=cfg, out=out)
    with progress("cache", sum(len(shard.passes) for shard in todo)) as advance:
        for shard, done in zip(todo, parallel_map(work, todo, workers), strict=True):
            again = functools.partial(_fill, shard, root, cfg, out, apart=True)
            filled[shard.number] = again() if isinstance(done, WorkerDied) else done
            advance(len(shard.passes))
    return _close([filled[shard.number] for shard in shards], slices, out)


def _fill(shard: Shard, root: Path, cfg: CacheConfig, out: Path, *, apart: bool = False) -> Filled:
    """Decode a shard and write it, in the process that decodes.

    Args:
        shard: Which.
        root: Folder that the slices' paths are relative to.
        cfg: Size, crop, slabs.
        out: The folder of the cache.
        apart: A process died of this shard: each pass in one of its own, and the one that kills it is
            excluded.
    """
    work = functools.partial(_decode, root=root, cfg=cfg)
    found = parallel_map(work, shard.passes, 1, apart=True) if apart else map(work, shard.passes)
    decoded = (
        _lost(slices) if isinstance(part, WorkerDied) else part
        for slices, part in zip(shard.passes, found, strict=True)
    )
    return fill_shard(shard, decoded, out, cfg.size)


def _lost(slices: pl.DataFrame) -> DecodedPass:
    """Exclude all slices of a pass on which a worker process died."""
    rows = slices.iter_rows(named=True)
    return DecodedPass(slices, excluded=[_excluded(ExclusionError(Reason.WORKER_DIED), row) for row in rows])


def _must_fit(wanted: int, out: Path) -> None:
    """Raise an error if the disk is too small for the cache."""
    free = shutil.disk_usage(out).free
    if wanted + _SPARE_BYTES > free:
        raise EnvironmentFaultError(
            f"cache: {wanted / 1e9:,.1f} GB are needed below {out}, {free / 1e9:,.1f} GB are free; "
            "choose another --out, or a smaller cache.size"
        )


def _close(filled: list[Filled], slices: pl.DataFrame, out: Path) -> BuildSummary:
    """Write the tables of all shards, with labels and folds."""
    slabs = with_labels(pl.concat([f.slabs for f in filled]), slices)
    quarantine = pl.concat([f.excluded for f in filled])
    if slabs.is_empty():
        must_not_be_timeouts("cache", quarantine["reason"])
        raise nothing_usable(quarantine, out, f"cache: no slice of {len(slices):,} could be decoded")
    report_exclusions(quarantine)
    twice = _shared_pixels(slabs)
    if twice:
        say(
            "cache",
            f"{twice:,} slices have the same pixels as slices of another patient; if one scan has two "
            "names, it leaks across folds",
        )
    wraps = report_wraps(slices, int(slabs["unwrapped"].sum()), quarantine)
    write_table(slabs, out / "slabs.parquet", SLABS)
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    counts = {"slices": slices.height - len(quarantine), "studies": slices["study"].n_unique()}
    counts |= (
        report_brain_modes(slabs) | wraps | ({"slices with another patient's pixels": twice} if twice else {})
    )
    digests = {name: digest for f in filled for name, digest in f.digests.items()}
    return BuildSummary(counts, dict(quarantine.group_by("reason").len().rows()), digests=digests)


def _shared_pixels(slabs: pl.DataFrame) -> int:
    """Number of slices whose pixels also occur under another patient."""
    hashes = slabs.select("patient", hash="hashes").explode("hash").drop_nulls("hash")
    return len(hashes.filter(pl.col("patient").n_unique().over("hash") > 1))
