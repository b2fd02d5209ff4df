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
from rsna_seq.errors import NothingUsableError
from rsna_seq.imaging.decoder import must_not_be_timeouts
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.imaging.windows import apply_window
from rsna_seq.provenance import source_digest
from rsna_seq.reasons import Reason, SetAsideError
from rsna_seq.stages import index
from rsna_seq.store.artifacts import Key, Receipt
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import write_bytes
from rsna_seq.store.outputs import own_files
from rsna_seq.tables import table_digest
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
        EnvironmentFaultError: No slice could be read, and decoding took too long.
    """
    scan = index.scan(root, IndexConfig(), workers=workers, limit=limit, title="png")
    if scan.slices.is_empty():
        raise NothingUsableError(f"png: no readable CT slice below {root}")

    def build(folder: Path) -> Receipt:
        return _build(scan, folder, windows, size, workers)

    inputs = {"slices": table_digest(scan.slices), "quarantine": table_digest(scan.quarantine)}
    config = {"windows": windows, "size": size, "limit": limit}
    manifest = ensure(out, Key("png", config, inputs, source_digest(__name__)), build, sources=[root])
    return Counter(manifest.counts | manifest.set_aside)


def _build(scan: index.Scan, out: Path, windows: Windows, size: int | None, workers: int) -> Receipt:
    """Write the images of every study."""
    aside = Counter[str](dict(scan.quarantine.group_by("reason").len().rows()))
    studies = [rows for _, rows in scan.slices.group_by("study", maintain_order=True)]
    names = [name for rows in studies for name in _names(rows)]
    own_files().claim(*names)
    work = functools.partial(_study, root=scan.root, out=out, windows=windows, size=size)
    with progress("png", len(studies)) as advance:
        for done in spread_over(work, studies, workers):
            aside += Counter({str(Reason.WORKER_DIED): 1}) if isinstance(done, WorkerDied) else done
            advance(1)
    written = aside.pop("written", 0)
    if not written:
        must_not_be_timeouts("png", aside.elements())
    return Receipt({"written": written}, aside)


def _names(rows: pl.DataFrame) -> list[str]:
    """The files of a study's slices, relative to the output folder."""
    folder = safe_name(rows["study"][0])
    slices = rows.select("order", "slice").iter_rows()
    return [f"{folder}/{order:04d}_{safe_name(name)}.png" for order, name in slices]


def safe_name(uid: str) -> str:
    """A name for a file made of a UID: what could be a path, or is overlong, is replaced by a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", uid):
        return uid
    return "uid_" + hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:20]


def _study(rows: pl.DataFrame, root: Path, out: Path, windows: Windows, size: int | None) -> Counter[str]:
    counts = Counter[str]()
    wrapped = {
        sweep: series_is_wrapped(root, part.rows(named=True)) for (sweep,), part in rows.group_by("pass")
    }
    for name, row in zip(_names(rows), rows.iter_rows(named=True), strict=True):
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
        encoded, content = cv2.imencode(".png", image)
        assert encoded, name
        write_bytes(out / name, content.data, sync=False)
        counts["written"] += 1
    return counts
