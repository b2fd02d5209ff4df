"""``png``: windowed PNGs of every slice, for people and other programs."""

import functools
import hashlib
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import polars as pl

from rsna_seq.config import IndexConfig
from rsna_seq.console import progress
from rsna_seq.errors import EnvironmentFaultError, NothingUsableError
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.imaging.windows import apply_window
from rsna_seq.reasons import Reason, SetAsideError
from rsna_seq.stages import index
from rsna_seq.workers import WorkerDied, spread_over

Windows = tuple[tuple[float, float], ...]


def run(
    root: Path,
    out: Path,
    *,
    windows: Windows,
    workers: int = 1,
    size: int | None = None,
    limit: int | None = None,
) -> Counter[str]:
    """Write ``OUT/STUDY/ORDER_SLICE.png`` for every slice below a folder.

    Args:
        root: Folder of DICOM files.
        out: Receives a folder a study.
        windows: Level and width in HU; one makes grey images, three make red, green and blue.
        workers: Processes.
        size: Rows and columns; None keeps the slice's own.
        limit: Only so many studies.

    Returns:
        How many were written, and how many were set aside by reason.

    Raises:
        NothingUsableError: There is no readable slice.
    """
    scan = index.scan(root, IndexConfig(), workers=workers, limit=limit, title="png")
    if scan.slices.is_empty():
        raise NothingUsableError(f"png: no readable CT slice below {root}")
    counts = Counter[str](dict(scan.quarantine.group_by("reason").len().rows()))
    studies = [rows for _, rows in scan.slices.group_by("study", maintain_order=True)]
    work = functools.partial(_study, root=scan.root, out=out, windows=windows, size=size)
    with progress("png", len(studies)) as advance:
        for done in spread_over(work, studies, workers):
            counts += Counter({str(Reason.WORKER_DIED): 1}) if isinstance(done, WorkerDied) else done
            advance(1)
    return counts


def safe_name(uid: str) -> str:
    """A name for a file made of a UID: what could be a path, or is overlong, is replaced by a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", uid):
        return uid
    return "uid_" + hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:20]


def _study(rows: pl.DataFrame, root: Path, out: Path, windows: Windows, size: int | None) -> Counter[str]:
    folder = out / safe_name(rows["study"][0])
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter[str]()
    wrapped = {
        sweep: series_is_wrapped(root, part.rows(named=True)) for (sweep,), part in rows.group_by("pass")
    }
    for row in rows.iter_rows(named=True):
        try:
            hu = read_hu(root / row["file"], row, wrapped_series=wrapped[row["pass"]])
        except SetAsideError as error:
            counts[str(error.reason)] += 1
            continue
        shown = np.stack([apply_window(hu, *window) for window in windows], axis=-1)
        if size is not None:
            shown = cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)
        image = np.rint(shown.reshape(*shown.shape[:2], -1)[..., ::-1] * 255).astype(
            np.uint8
        )  # OpenCV writes BGR
        path = folder / f"{row['order']:04d}_{safe_name(row['slice'])}.png"
        if not cv2.imwrite(str(path), image):
            raise EnvironmentFaultError(f"{path}: could not be written")
        counts["written"] += 1
    return counts
