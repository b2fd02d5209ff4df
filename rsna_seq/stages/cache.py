"""``cache``: pixels decoded once, in Hounsfield units.

1. :func:`apply`, one pass of a study: stored values -> HU -> the square around the head -> resized to
   ``size`` by area -> slabs -> the mode of brain tissue shifted to ``brain_hu``.
2. :func:`run`: all studies, in parallel, into shards (:mod:`rsna_seq.store.shards`); ``slabs.parquet`` holds
   one row per slab.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.config import CacheConfig
from rsna_seq.console import progress, say
from rsna_seq.context import Context
from rsna_seq.datasets.imported import images_root
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.frame_limits import frames_to_refuse
from rsna_seq.imaging.pixels import PixelBuffer, pixel_hash, read_pixels, series_is_wrapped
from rsna_seq.imaging.prepare import prepare
from rsna_seq.imaging.sources import must_exist
from rsna_seq.imaging.volume import Volume
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest, open_artifact
from rsna_seq.store.builds import ensure
from rsna_seq.store.outputs import own_files
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.shards import (
    SHARD_FILES,
    Filled,
    Shard,
    fill_shard,
    keep_shard,
    must_fit,
    shards_of,
    shared_pixels,
    with_labels,
)
from rsna_seq.store.slabs import (
    DecodedPass,
    pass_on_study_labels,
    report_brain_modes,
    report_wraps,
    slab_table,
)
from rsna_seq.store.tables import (
    QUARANTINE,
    SLABS,
    SLICES,
    nothing_usable,
    read_table,
    report_exclusions,
    write_table,
)

_BUFFER = PixelBuffer()
Rows = list[dict[str, object]]
Decode = Callable[[pl.DataFrame], DecodedPass]


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
    index, places = open_artifact(run["index"]), ctx.data.sets or (ctx.data.root,)
    config = {**cfg.model_dump(mode="json"), "limit": ctx.limit}
    key = Key("cache", config, {"index": index.manifest.content}, source_digest(__name__))

    def build(folder: Path) -> BuildSummary:
        for place in places:
            must_exist(place, "data.sets" if ctx.data.sets else "data.root")
        slices = read_table(index.file("slices.parquet"), SLICES)
        if ctx.limit is not None:
            slices = slices.filter(pl.col("study").rank("dense") <= ctx.limit)
        decode = functools.partial(_decode, root=images_root(places), cfg=cfg)
        summary = build_shards(cfg, slices, decode, folder, ctx.workers, key.source)
        pass_on_study_labels(index, slices, folder)
        return summary

    return ensure(run["cache"], key, build, rebuild=ctx.rebuild, piecewise=True, sources=places)


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
    room, wrapped = iter(_BUFFER.take(read)), series_is_wrapped(folder, rows)
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
    return decoded_pass(slices, kept, pixels, unwrapped, aside, cfg)


def decoded_pass(
    slices: pl.DataFrame,
    kept: list[int],
    pixels: list[NDArray[np.int16]],
    unwrapped: list[bool],
    excluded: Rows,
    cfg: CacheConfig,
) -> DecodedPass:
    """Prepare the pixels of one pass for the cache.

    Args:
        slices: Rows of SLICES of one study and pass, in order.
        kept: Indices of those that have pixels.
        pixels: (y, x) HU of each of them; at least one.
        unwrapped: Whether a 12-bit wrap was corrected in each of them.
        excluded: Rows of QUARANTINE of the others.
        cfg: Size, crop, slabs.
    """
    ready = prepare(pixels, slices["z_mm"].to_numpy()[kept], cfg)
    hashes = [pixel_hash(hu) for hu in pixels]
    return DecodedPass(
        slices, kept, ready.hu, ready.numbers, hashes, ready.square, excluded, unwrapped, ready.brain_hu,
        ready.hu_shift,
    )  # fmt: skip


def _excluded(error: ExclusionError, row: dict[str, object]) -> dict[str, object]:
    """The row of QUARANTINE of an indexed slice."""
    return error.row(str(row["file"])) | {"study": row["study"], "slice": row["slice"], "z_mm": row["z_mm"]}


def build_shards(
    cfg: CacheConfig, slices: pl.DataFrame, decode: Decode, out: Path, workers: int, source: str
) -> BuildSummary:
    """Decode pass after pass into shards; a shard that is there and sound stays.

    Args:
        cfg: Size, crop, slabs, shards.
        slices: SLICES, with labels and folds.
        decode: Decodes the rows of one pass; it can be sent to another process.
        out: The folder of the cache, which is being built.
        workers: Number of processes.
        source: Digest of the code that decodes.
    """
    shards, own = shards_of(split_by_pass(slices), cfg, source), own_files()
    filled = {shard.number: kept for shard in shards if (kept := keep_shard(shard, out)) is not None}
    todo = [shard for shard in shards if shard.number not in filled]
    if filled and todo:
        say("cache", f"{len(filled):,} of {len(shards):,} shards are sound and stay")
    must_fit(todo, cfg.size, out)
    wanted = {shard.file(out, kind).name for shard in shards for kind in SHARD_FILES}
    own.discard(keep=wanted)
    own.claim(*sorted(wanted))
    work = functools.partial(_fill, decode=decode, size=cfg.size, out=out)
    with progress("cache", sum(len(shard.passes) for shard in todo)) as advance:
        for shard, done in zip(todo, parallel_map(work, todo, workers), strict=True):
            again = functools.partial(_fill, shard, decode, cfg.size, out, apart=True)
            filled[shard.number] = again() if isinstance(done, WorkerDied) else done
            advance(len(shard.passes))
    return _close([filled[shard.number] for shard in shards], slices, out)


def _fill(shard: Shard, decode: Decode, size: int, out: Path, *, apart: bool = False) -> Filled:
    """Decode a shard and write it, in the process that decodes.

    Args:
        shard: Which.
        decode: Decodes the rows of one pass.
        size: Rows and columns of a slab.
        out: The folder of the cache.
        apart: A process died of this shard: each pass in one of its own, and the one that kills it is
            excluded.
    """
    found = parallel_map(decode, shard.passes, 1, apart=True) if apart else map(decode, shard.passes)
    decoded = (
        _lost(slices) if isinstance(part, WorkerDied) else part
        for slices, part in zip(shard.passes, found, strict=True)
    )
    return fill_shard(shard, decoded, out, size)


def _lost(slices: pl.DataFrame) -> DecodedPass:
    """Exclude all slices of a pass on which a worker process died."""
    rows = slices.iter_rows(named=True)
    return DecodedPass(slices, excluded=[_excluded(ExclusionError(Reason.WORKER_DIED), row) for row in rows])


def _close(filled: list[Filled], slices: pl.DataFrame, out: Path) -> BuildSummary:
    """Write the tables of all shards, with labels and folds."""
    slabs = with_labels(pl.concat([f.slabs for f in filled]), slices)
    quarantine = pl.concat([f.excluded for f in filled])
    if slabs.is_empty():
        must_not_be_timeouts("cache", quarantine["reason"])
        raise nothing_usable(quarantine, out, f"cache: no slice of {len(slices):,} could be decoded")
    report_exclusions(quarantine)
    twice = shared_pixels(slabs)
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
