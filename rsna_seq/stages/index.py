"""``index``: headers to a table.

1. :func:`scan`: every file below a folder -> a header or a reason, in parallel.
2. Duplicates merged, series chosen, slices placed along their normal and ordered.
3. :func:`run`: labels joined, patients put into folds, ``slices.parquet``, ``studies.parquet``,
   ``quarantine.parquet``.
"""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from rsna_seq.artifacts import Key, Manifest, Receipt, digest_file, ensure
from rsna_seq.config import DataConfig, IndexConfig
from rsna_seq.console import progress, say
from rsna_seq.errors import NothingUsableError, UsageError
from rsna_seq.folds import assign
from rsna_seq.imaging.dicom import read_header
from rsna_seq.imaging.geometry import order, place, summarize
from rsna_seq.imaging.series import choose_series, merge_duplicates
from rsna_seq.label_csv import read_labels
from rsna_seq.labels import CLASSES
from rsna_seq.layout import find_layout
from rsna_seq.provenance import source_digest
from rsna_seq.reasons import SetAsideError
from rsna_seq.tables import QUARANTINE, SLICES, STUDIES, check, from_rows, write_table
from rsna_seq.workers import spread_over

_CHUNK = 256
"""Files that a worker reads between two answers."""
_IN_PROCESS = 2000
"""Fewer files than this are read in this process: starting others takes longer."""


@dataclass(frozen=True)
class Scan:
    """What lies below a folder, without labels.

    Attributes:
        slices: SLICES; labels and folds are null.
        studies: STUDIES; labels and folds are null.
        quarantine: QUARANTINE.
    """

    slices: pl.DataFrame
    studies: pl.DataFrame
    quarantine: pl.DataFrame


def run(
    cfg: IndexConfig,
    data: DataConfig,
    out: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    limit: int | None = None,
    rebuild: bool = False,
) -> Manifest:
    """Index the training images of a root.

    Args:
        cfg: Folds, holdout, series.
        data: Root, stage of the competition, label file.
        out: The folder ``1_index``.
        seed: Seed of the folds.
        workers: Processes that read headers.
        limit: Only so many studies.
        rebuild: Index anew what is there.

    Raises:
        UsageError: The root is no folder, or labels contradict each other.
        NothingUsableError: There is no readable CT slice.
    """
    if not data.root.is_dir():
        raise UsageError(f"data.root: there is no folder {data.root}")
    layout = find_layout(data.root, data.stage)
    folder, labels = layout.train or data.root, data.labels or layout.labels
    files = list_files(folder)
    inputs = {"files": _listing_digest(files)} | ({"labels": digest_file(labels)} if labels else {})
    config = {**cfg.model_dump(mode="json"), "stage": data.stage, "seed": seed, "limit": limit}

    def build(target: Path) -> Receipt:
        scanned = scan(folder, cfg, workers=workers, limit=limit, root=data.root)
        if scanned.slices.is_empty():
            raise NothingUsableError(f"index: no readable CT slice among {len(files):,} files below {folder}")
        return _write(_with_labels(scanned, labels, cfg, seed), target)

    return ensure(out, Key("index", config, inputs, source_digest(__name__)), build, rebuild=rebuild)


def scan(
    folder: Path,
    cfg: IndexConfig,
    *,
    workers: int = 1,
    limit: int | None = None,
    title: str = "index",
    root: Path | None = None,
) -> Scan:
    """Read the header of every file below a folder and order the slices of each study.

    Args:
        folder: Where files are looked for.
        cfg: Series, assumptions.
        workers: Processes that read headers.
        limit: Only so many studies, by StudyInstanceUID.
        title: Title of the progress bar.
        root: Folder that the paths in the tables are relative to; None is ``folder``.
    """
    root = root or folder
    names = [name for name, _, _ in list_files(folder)]
    chunks = [names[i : i + _CHUNK] for i in range(0, len(names), _CHUNK)]
    jobs = [(str(folder), str(root), chunk, cfg.assume_hu) for chunk in chunks]
    rows: list[dict[str, object]] = []
    aside: list[dict[str, object]] = []
    with progress(title, len(names)) as advance:
        few = len(names) < _IN_PROCESS
        for (good, bad), chunk in zip(
            spread_over(_read_chunk, jobs, 1 if few else workers), chunks, strict=True
        ):
            rows += good
            aside += bad
            advance(len(chunk))
    slices, more = _arrange(from_rows(rows, _HEADERS), cfg, root)
    if limit is not None:
        slices = slices.filter(pl.col("study").rank("dense") <= limit)
    studies = _studies(slices)
    return Scan(check_slices(slices), studies, from_rows(aside + more, QUARANTINE).sort("file", "slice"))


def list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Files below a folder, sorted: path relative to it, size, mtime in ns; links are not followed."""
    found = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            path = os.path.join(where, name)  # noqa: PTH118  (a million files: strings are ten times as fast)
            stat = os.lstat(path)
            found.append((os.path.relpath(path, folder), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


_HEADERS: dict[str, pl.DataType] = {
    **{
        c: t for c, t in SLICES.items() if c not in {"order", "z_mm", "gap_below_mm", "gap_above_mm", "flags"}
    },
    **{f"p_{i}": pl.Float64() for i in range(3)},
    **{f"o_{i}": pl.Float64() for i in range(6)},
    "location": pl.Float64(),
    "number": pl.Int64(),
    "image_type": pl.String(),
    "kernel": pl.String(),
    "description": pl.String(),
    "contrast": pl.Boolean(),
}


def _read_chunk(
    job: tuple[str, str, list[str], bool],
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Read the headers of some files: rows of _HEADERS, and rows of QUARANTINE."""
    folder, root, names, assume_hu = job
    rows, aside = [], []
    for name in names:
        path = Path(folder) / name
        file = os.path.relpath(path, root)
        try:
            header = read_header(path, assume_hu=assume_hu)
        except SetAsideError as error:
            aside.append(error.row(file))
            continue
        stat = path.lstat()
        row = asdict(header) | {
            "file": file,
            "frame": 0,
            "file_size": stat.st_size,
            "file_mtime_ns": stat.st_mtime_ns,
        }
        row |= {f"p_{i}": p for i, p in enumerate(header.position or ())}
        row |= {f"o_{i}": o for i, o in enumerate(header.orientation or ())}
        rows.append(row)
    return rows, aside


def _arrange(
    headers: pl.DataFrame, cfg: IndexConfig, root: Path
) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    """From headers in any order to one ordered series a study."""
    twice = headers.filter(pl.struct("slice", "frame").is_duplicated())["file"]
    digests = {file: digest_file(root / file) for file in twice}
    known = headers.with_columns(
        digest=pl.col("file").replace_strict(digests, default=None, return_dtype=pl.String)
    )
    unique, copies = merge_duplicates(known.sort("file"))
    chosen, others = choose_series(place(unique), cfg.series)
    return order(chosen.with_columns(flags=_flags())), copies + others


def _flags() -> pl.Expr:
    """Words on a slice that are worth knowing, comma-separated."""
    wrapped = (pl.col("bits_stored") == 12) & ~pl.col("signed") & (pl.col("intercept") > -100)
    words = [
        pl.when(pl.col("placed_by") != "position").then(pl.lit("no_position")),
        pl.when(pl.col("contrast")).then(pl.lit("contrast")),
        pl.when(wrapped).then(pl.lit("wrap")),
    ]
    return pl.concat_str(words, separator=",", ignore_nulls=True)


def check_slices(slices: pl.DataFrame) -> pl.DataFrame:
    """The columns of SLICES, checked."""
    return check(slices.select(list(SLICES)), SLICES, "slices")


def _studies(slices: pl.DataFrame) -> pl.DataFrame:
    """STUDIES of ordered slices."""
    about = slices.group_by("study", maintain_order=True).agg(
        pl.col("patient", "series", "grounds").first(),
        pl.col("flags").str.split(",").explode().unique().sort().str.join(",").str.strip_chars(","),
        *(pl.col(c).max() for c in CLASSES),
        pl.col("fold", "cross_fold").first(),
    )
    return check(
        about.join(summarize(slices), on="study", how="left").select(list(STUDIES)), STUDIES, "studies"
    )


def _with_labels(scanned: Scan, labels: Path | None, cfg: IndexConfig, seed: int) -> Scan:
    """Join labels and folds to what was scanned."""
    if labels is None:
        say("index", "no label CSV: the studies can be scored, not trained on")
        return scanned
    truth = read_labels(labels)
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
    return Scan(check_slices(slices), check(studies, STUDIES, "studies"), scanned.quarantine)


def _write(scanned: Scan, out: Path) -> Receipt:
    write_table(scanned.slices, out / "slices.parquet", SLICES)
    write_table(scanned.studies, out / "studies.parquet", STUDIES)
    write_table(scanned.quarantine, out / "quarantine.parquet", QUARANTINE)
    reasons = scanned.quarantine.group_by("reason", maintain_order=True).len().rows()
    return Receipt({"slices": len(scanned.slices), "studies": len(scanned.studies)}, dict(reasons))


def _listing_digest(files: list[tuple[str, int, int]]) -> str:
    """Digest of names, sizes and times: what tells that a source file changed."""
    digest = hashlib.sha256()
    for name, size, mtime in files:
        digest.update(f"{name}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
