"""``png``: windowed PNGs of every slice, for people and other programs."""

import functools
import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.config import IndexConfig
from rsna_seq.console import progress
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.imaging.sources import must_exist
from rsna_seq.imaging.windows import apply_window
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason
from rsna_seq.stages import index
from rsna_seq.store.artifacts import BuildSummary, Key
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_bytes
from rsna_seq.store.outputs import own_files
from rsna_seq.store.provenance import source_digest
from rsna_seq.store.tables import QUARANTINE, from_rows, nothing_usable, table_digest, write_table

Image = NDArray[np.float32]
Windows = tuple[tuple[float, float], ...]
Rows = list[dict[str, object]]


def run(
    root: Path,
    out: Path,
    *,
    windows: Windows,
    workers: int = 1,
    size: int | None = None,
    limit: int | None = None,
) -> Counter[str]:
    """Write ``OUT/STUDY/ORDER_SLICE.png`` for every slice of an input, and ``OUT/quarantine.parquet``.

    Args:
        root: A folder, a zip file or a DICOM file.
        out: Receives one folder per study.
        windows: Level and width in HU; one makes grey images, three make red, green and blue.
        workers: Processes.
        size: Rows and columns; None keeps the slice's own.
        limit: Only so many studies.

    Returns:
        How many were written, and how many files were excluded, by reason.

    Raises:
        UsageError: The input does not exist.
        NothingUsableError: No slice could be read; ``quarantine.parquet`` says why.
        EnvironmentFaultError: No slice could be read, and decoding took too long.
    """
    must_exist(root, "png")
    scan = index.scan(root, IndexConfig(), workers=workers, limit=limit, title="png")

    def build(folder: Path) -> BuildSummary:
        summary, quarantine = _build(scan, folder, windows, size, workers)
        if not summary.counts["written"]:
            raise nothing_usable(quarantine, folder, f"png: no readable CT slice in {root}")
        write_table(quarantine, folder / "quarantine.parquet", QUARANTINE)
        return summary

    inputs = {"slices": table_digest(scan.slices), "quarantine": table_digest(scan.quarantine)}
    config = {"windows": windows, "size": size, "limit": limit}
    manifest = ensure(out, Key("png", config, inputs, source_digest(__name__)), build, sources=[root])
    return Counter(manifest.counts | manifest.excluded)


def _build(
    scan: index.Scan, out: Path, windows: Windows, size: int | None, workers: int
) -> tuple[BuildSummary, pl.DataFrame]:
    """Write the images of every study; the build summary, and QUARANTINE."""
    studies = [rows for _, rows in scan.slices.group_by("study", maintain_order=True)]
    names = [name for rows in studies for name in _names(rows)]
    own_files().claim(*names)
    work = functools.partial(_study, root=scan.root, out=out, windows=windows, size=size)
    written, lost = 0, [scan.quarantine]
    with progress("png", len(studies)) as advance:
        for rows, done in zip(studies, parallel_map(work, studies, workers), strict=True):
            images, aside = (0, _died(rows)) if isinstance(done, WorkerDied) else done
            written += images
            lost.append(from_rows(aside, QUARANTINE))
            advance(1)
    quarantine = pl.concat(lost)
    if not written:
        must_not_be_timeouts("png", quarantine["reason"])
    reasons = dict(quarantine.group_by("reason", maintain_order=True).len().rows())
    return BuildSummary({"written": written}, reasons), quarantine


def _names(rows: pl.DataFrame) -> list[str]:
    """The files of a study's slices, relative to the output folder."""
    folder = safe_name(rows["study"][0])
    slices = rows.select("order", "slice").iter_rows()
    return [f"{folder}/{order:04d}_{safe_name(name)}.png" for order, name in slices]


def safe_name(uid: str) -> str:
    """A file name for a UID; a UID that could be a path, or is too long, is replaced by its digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", uid):
        return uid
    return "uid_" + hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:20]


def _study(rows: pl.DataFrame, root: Path, out: Path, windows: Windows, size: int | None) -> tuple[int, Rows]:
    """Write one study: how many images, and the rows of QUARANTINE."""
    written, aside = 0, Rows()
    wrapped = {
        number: series_is_wrapped(root, part.rows(named=True)) for (number,), part in rows.group_by("pass")
    }
    for name, row in zip(_names(rows), rows.iter_rows(named=True), strict=True):
        try:
            path = os.path.join(root, row["file"])  # noqa: PTH118  (Path drops "./" and "//")
            hu = read_hu(path, row, wrapped_series=wrapped[row["pass"]])
        except ExclusionError as error:
            aside.append(_lost(error, row))
            continue
        shown = np.stack([apply_window(hu, *window) for window in windows], axis=-1)
        if size is not None:
            shown = cast(Image, cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA))
        image = np.rint(shown.reshape(*shown.shape[:2], -1)[..., ::-1] * 255).astype(
            np.uint8
        )  # OpenCV writes BGR
        encoded, content = cv2.imencode(".png", image)
        assert encoded, name
        write_bytes(out / name, content.data, sync=False)
        written += 1
    return written, aside


def _died(slices: pl.DataFrame) -> Rows:
    """Rows of QUARANTINE for a study on which a worker process died."""
    return [_lost(ExclusionError(Reason.WORKER_DIED), row) for row in slices.iter_rows(named=True)]


def _lost(error: ExclusionError, row: dict[str, object]) -> dict[str, object]:
    """The row of QUARANTINE of an indexed slice."""
    return error.row(str(row["file"])) | {name: row[name] for name in ("study", "slice", "z_mm")}
