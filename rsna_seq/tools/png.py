"""``png``: windowed PNGs of every slice, for people and other programs."""

import functools
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import polars as pl

from rsna_seq.config import IndexConfig
from rsna_seq.console import progress
from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.sources import must_exist
from rsna_seq.imaging.windows import apply_window
from rsna_seq.reasons import Reason, SetAsideError
from rsna_seq.stages import index
from rsna_seq.tables import QUARANTINE, from_rows, nothing_usable, write_table
from rsna_seq.workers import WorkerDied, spread_over

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
        How many were written, and how many were set aside by reason.

    Raises:
        UsageError: The input does not exist.
        NothingUsableError: No slice could be read; ``quarantine.parquet`` says why.
    """
    must_exist(root, "png")
    scan = index.scan(root, IndexConfig(), workers=workers, limit=limit, title="png")
    studies = [rows for _, rows in scan.slices.group_by("study", maintain_order=True)]
    work = functools.partial(_study, root=scan.root, out=out, windows=windows, size=size)
    written, lost = 0, [scan.quarantine]
    with progress("png", len(studies)) as advance:
        for rows, done in zip(studies, spread_over(work, studies, workers), strict=True):
            images, aside = (0, _died(rows)) if isinstance(done, WorkerDied) else done
            written += images
            lost.append(from_rows(aside, QUARANTINE))
            advance(1)
    quarantine = pl.concat(lost)
    if not written:
        raise nothing_usable(quarantine, out, f"png: no readable CT slice in {root}")
    write_table(quarantine, out / "quarantine.parquet", QUARANTINE)
    return Counter({"written": written} | dict(quarantine.group_by("reason").len().rows()))


def safe_name(uid: str) -> str:
    """A name for a file made of a UID: what could be a path, or is overlong, is replaced by a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", uid):
        return uid
    return "uid_" + hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:20]


def _study(rows: pl.DataFrame, root: Path, out: Path, windows: Windows, size: int | None) -> tuple[int, Rows]:
    """Write one study: how many images, and the rows of QUARANTINE."""
    folder = out / safe_name(rows["study"][0])
    written, aside = 0, Rows()
    for row in rows.iter_rows(named=True):
        try:
            hu = read_hu(os.path.join(root, row["file"]), row)  # noqa: PTH118  (Path drops "./" and "//")
        except SetAsideError as error:
            aside.append(_lost(error, row))
            continue
        shown = np.stack([apply_window(hu, *window) for window in windows], axis=-1)
        if size is not None:
            shown = cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)
        image = np.rint(shown.reshape(*shown.shape[:2], -1)[..., ::-1] * 255).astype(
            np.uint8
        )  # OpenCV writes BGR
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{row['order']:04d}_{safe_name(row['slice'])}.png"
        if not cv2.imwrite(str(path), image):
            raise EnvironmentFaultError(f"{path}: could not be written")
        written += 1
    return written, aside


def _died(slices: pl.DataFrame) -> Rows:
    """Rows of QUARANTINE for a study that kills whatever reads it."""
    return [_lost(SetAsideError(Reason.WORKER_DIED), row) for row in slices.iter_rows(named=True)]


def _lost(error: SetAsideError, row: dict[str, object]) -> dict[str, object]:
    """The row of QUARANTINE of an indexed slice."""
    return error.row(str(row["file"])) | {name: row[name] for name in ("study", "slice", "z_mm")}
