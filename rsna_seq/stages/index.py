"""``index``: headers to a table.

1. :func:`scan`: every file below some folders or in archives -> a header or a reason, in parallel.
2. Duplicates merged, series chosen, slices placed along their normal, parted into passes and ordered.
3. :func:`run`: labels joined, patients put into folds, ``slices.parquet``, ``studies.parquet``,
   ``quarantine.parquet``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from rsna_seq.config import IndexConfig
from rsna_seq.console import progress, say
from rsna_seq.context import Context
from rsna_seq.datasets.imported import is_imported, read_sets
from rsna_seq.datasets.rsna2019.label_csv import check_labels
from rsna_seq.datasets.rsna2019.layout import find_layout
from rsna_seq.folds import assign
from rsna_seq.imaging.geometry import edges_expr, flag, order, place, summarize
from rsna_seq.imaging.headers.chunks import Chunk, read_chunks
from rsna_seq.imaging.headers.fields import HEADERS
from rsna_seq.imaging.passes import split_passes
from rsna_seq.imaging.series import choose_series, merge_duplicates, must_be_found
from rsna_seq.imaging.settle import settle_places
from rsna_seq.imaging.sources import Listing, digest_source, list_files, must_exist
from rsna_seq.labels import CLASSES
from rsna_seq.store.artifacts import BuildSummary, Key, Manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.provenance import digest_file, source_digest
from rsna_seq.store.run_folder import PHANTOMS, RunFolder, is_phantom_set
from rsna_seq.store.tables import (
    QUARANTINE,
    SLICES,
    STUDIES,
    check,
    from_rows,
    nothing_usable,
    report_exclusions,
    write_table,
)
from rsna_seq.terminal.paths import require_file

_CHUNK = 2048
"""Files per chunk: large enough that the overhead of each vectorised step is negligible."""

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Scan:
    """Slices and studies found in the inputs, without labels.

    Attributes:
        root: Folder that ``file`` in the tables is relative to: the one that was scanned, or the deepest that
            holds all that were.
        slices: SLICES; labels and folds are null.
        studies: STUDIES; labels and folds are null.
        quarantine: QUARANTINE.
        numbers: ``number`` (InstanceNumber) and ``edges`` (of ``geometry.edges_expr``) of each slice.
    """

    root: Path
    slices: pl.DataFrame
    studies: pl.DataFrame
    quarantine: pl.DataFrame
    numbers: pl.DataFrame


def run(cfg: IndexConfig, ctx: Context, run: RunFolder) -> Manifest:
    """Index the training images of the data root.

    Args:
        cfg: Folds, holdout, series.
        ctx: Data, seed, workers, limit.
        run: Receives ``1_index``.

    Raises:
        UsageError: The root does not exist, there is no label file, labels contradict each other, or
            ``cfg.series`` is found nowhere.
        NothingUsableError: There is no readable CT slice; ``quarantine.parquet`` contains the reasons.
        IntegrityError: An archive is refused.
    """
    data = ctx.data
    must_exist(data.root, "data.root")
    if data.labels is not None:
        require_file(data.labels, "data.labels")
    layout = find_layout(data.root, data.stage)
    place_, labels = layout.train or data.root, data.labels or layout.labels
    listing = list_files(place_)
    inputs = {"files": listing.digest} | ({"labels": digest_file(labels)} if labels else {})

    def build(folder: Path) -> BuildSummary:
        scanned = scan(place_, cfg, workers=ctx.workers, limit=ctx.limit, root=data.root, listing=listing)
        if scanned.slices.is_empty():
            what = f"index: no readable CT slice among {len(listing):,} files of {place_}"
            raise nothing_usable(scanned.quarantine, folder, what)
        return write(_labelled(scanned, labels, cfg, ctx.seed), folder, phantoms=is_phantom_set(data.root))

    sources = [place_, *([labels] if labels else [])]
    config = {**cfg.model_dump(mode="json"), "stage": data.stage, **ctx.key}
    key = Key("index", config, inputs, source_digest(__name__))
    return ensure(run["index"], key, build, rebuild=ctx.rebuild, sources=sources)


def scan(
    source: Path | Sequence[Path],
    cfg: IndexConfig,
    *,
    workers: int = 1,
    limit: int | None = None,
    title: str = "index",
    root: Path | None = None,
    listing: Listing | None = None,
) -> Scan:
    """Read the header of every file of a source, and order the slices of each study.

    Several sources are read as one: a folder that is given twice or lies within another is read once, and
    duplicates, mixed patients and series are found over all of them.

    Args:
        source: A folder, a zip file, a DICOM or NIfTI file, or several; or imported sets.
        cfg: Series, assumptions.
        workers: Processes that read headers.
        limit: Only so many studies, by StudyInstanceUID.
        title: Title of the progress bar.
        root: Folder that the paths in the tables are relative to; None is the source, or the folder of a
            file; of several sources the deepest folder that holds them all.
        listing: The source's files, where they are known already.

    Raises:
        UsageError: A source does not exist, or ``cfg.series`` is found in no study.
        IntegrityError: An archive is refused.
    """
    places = [source] if isinstance(source, Path) else [*source]
    if any(map(is_imported, places)):
        sets = read_sets(places)
        return arrange(sets.headers, sets.quarantine.to_dicts(), sets.root, cfg, limit=limit)
    listing = listing or list_files(*places)
    if root is not None and root != listing.root and not root.is_file():
        listing = listing.moved(root)
    chunks = [Chunk(part, cfg.assume_hu) for part in listing.parts(_CHUNK)]
    tables, aside = [pl.DataFrame(schema=HEADERS)], [*listing.aside]
    with progress(title, len(listing)) as advance:
        for files, good, bad in read_chunks(chunks, workers):
            tables.append(good)
            aside += bad
            advance(files)
    headers = pl.concat(tables)
    tables.clear()  # the table is held once, not twice
    return arrange(headers, aside, listing.root, cfg, limit=limit)


def arrange(
    headers: pl.DataFrame, aside: Rows, root: Path, cfg: IndexConfig, *, limit: int | None = None
) -> Scan:
    """Order the slices of each study.

    Args:
        headers: HEADERS, in any order.
        aside: Rows of QUARANTINE of files that have none.
        root: Folder that ``file`` is relative to.
        cfg: Series; one that is found in no study is a UsageError.
        limit: As in :func:`scan`.
    """
    slices, more = _arrange(headers, cfg, root)
    must_be_found(cfg.series, headers, slices)
    if limit is not None:
        slices = slices.filter(pl.col("study").rank("dense") <= limit)
    quarantine = from_rows(aside + more, QUARANTINE).sort("file", "slice")
    checked = check(slices.select(list(SLICES)), SLICES, "slices")
    numbers = slices.select("study", "slice", "number", edges_expr())
    return Scan(root, checked, _studies(slices), quarantine, numbers)


def _arrange(headers: pl.DataFrame, cfg: IndexConfig, root: Path) -> tuple[pl.DataFrame, Rows]:
    """Headers in any order to one ordered series per study."""
    twice = headers.filter(pl.col("slice").is_duplicated())["file"]
    digests = {file: digest_source(os.path.join(root, file)) for file in twice}  # noqa: PTH118
    known = headers.with_columns(
        digest=pl.col("file").replace_strict(digests, default=None, return_dtype=pl.String)
        if digests
        else pl.lit(None, pl.String)
    )
    unique, copies = merge_duplicates(known.sort("file", "frame"))
    chosen, others = choose_series(place(unique), cfg.series)
    # without a PatientID each study is a patient of its own, not all of them one
    nameless = pl.when(pl.col("patient") == "").then("study").otherwise("patient").alias("patient")
    placed, lost = settle_places(chosen)
    return flag(order(split_passes(placed))).with_columns(nameless, *_BARE), copies + others + lost


_BARE = [pl.lit(None, SLICES[name]).alias(name) for name in (*CLASSES, "fold", "cross_fold")]


def _studies(slices: pl.DataFrame) -> pl.DataFrame:
    """STUDIES of ordered slices."""
    about = slices.group_by("study", maintain_order=True).agg(
        pl.col("patient", "series", "grounds").first(),
        pl.col("flags").unique().sort().str.join(","),
        *(pl.col(c).max() for c in CLASSES),
        pl.col("fold", "cross_fold").first(),
    )
    words = pl.col("flags").str.split(",").list.unique().list.sort().list.join(",").str.strip_chars(",")
    table = about.with_columns(words).join(summarize(slices), on="study", how="left", maintain_order="left")
    return check(table.select(list(STUDIES)), STUDIES, "studies")


def _labelled(scanned: Scan, labels: Path | None, cfg: IndexConfig, seed: int) -> Scan:
    """Read the label CSV, and join labels and folds."""
    if labels is None:
        say("index", "no label CSV: the studies can be scored, not trained on")
        return scanned
    read = check_labels(labels, fix_any=cfg.fix_any)
    for note in read.notes():
        say("index", note)
    return with_labels(scanned, read.table, cfg, seed)


def with_labels(scanned: Scan, truth: pl.DataFrame, cfg: IndexConfig, seed: int) -> Scan:
    """Join labels and folds to the scanned slices.

    Args:
        scanned: Slices without labels.
        truth: Column ``slice`` and six Int8 columns, one row per slice.
        cfg: Folds, holdout.
        seed: Seed of the folds.
    """
    slices = scanned.slices.drop(CLASSES, "fold", "cross_fold")
    slices = slices.join(truth, on="slice", how="left", maintain_order="left")
    without = len(truth) - len(truth.join(slices, on="slice", how="semi"))
    bare = slices["any"].null_count()
    if without or bare:
        say("index", f"{without:,} labels without a readable slice, {bare:,} slices without a label")
    labelled = slices.filter(pl.col("any").is_not_null())
    patients = labelled.group_by("patient").agg(pl.col(c).max() for c in CLASSES)
    slices = slices.join(assign(patients, cfg, seed), on="patient", how="left", maintain_order="left")
    merged = slices.group_by("study", maintain_order=True).agg(
        *(pl.col(c).max() for c in CLASSES), pl.col("fold", "cross_fold").first()
    )
    studies = scanned.studies.drop(CLASSES, "fold", "cross_fold").join(merged, on="study", how="left")
    checked = check(slices.select(list(SLICES)), SLICES, "slices")
    return replace(scanned, slices=checked, studies=check(studies, STUDIES, "studies"))


def write(scanned: Scan, out: Path, *, phantoms: bool) -> BuildSummary:
    """Write the three tables, and count the studies as phantoms if they are."""
    write_table(scanned.slices, out / "slices.parquet", SLICES)
    write_table(scanned.studies, out / "studies.parquet", STUDIES)
    write_table(scanned.quarantine, out / "quarantine.parquet", QUARANTINE)
    report_exclusions(scanned.quarantine, scanned.studies["flags"].to_list())
    reasons = scanned.quarantine.group_by("reason", maintain_order=True).len().rows()
    counts = {"slices": len(scanned.slices), "studies": len(scanned.studies)}
    return BuildSummary(counts | ({PHANTOMS: counts["studies"]} if phantoms else {}), dict(reasons))
