"""The images of a study for its page: read at their own resolution, cropped to the head, and packed.

1. :func:`read_images`: the files -> (image, y, x) HU as they are, without the shift of ``cache``.
2. :func:`picture`: one image in a window, as a PNG in a ``data:`` address.
3. :func:`packed`: all images as text for the viewer.
"""

import base64
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.config import CacheConfig
from rsna_seq.imaging.pixels import read_hu, series_is_wrapped
from rsna_seq.imaging.prepare import prepare
from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.reasons import ExclusionError

MOST_IMAGES = 160
"""Largest number of images on a page, but for key images and their neighbours."""
_LOWEST_HU, _HIGHEST_HU = -800, 3071
"""Values beyond are set to these: noise in air would take half of the page, and no window shows it."""


@dataclass(frozen=True)
class Images:
    """The images of a study.

    Attributes:
        names: SOPInstanceUID of each; ``UID#N`` for a frame.
        z_mm: Position of each along the slice normal.
        hu: (image, side, side) HU, int16, cropped to the head.
        aspect: Height of a pixel divided by its width.
    """

    names: list[str]
    z_mm: list[float]
    hu: NDArray[np.int16]
    aspect: float

    def __len__(self) -> int:
        return len(self.names)


def read_images(rows: pl.DataFrame, root: Path, size: int, keys: Collection[str]) -> Images | None:
    """Read the images of a study.

    Args:
        rows: Rows of SLICES of one study, sorted by position.
        root: Folder that ``file`` is relative to.
        size: Largest number of rows and columns of an image.
        keys: Images that are read together with their neighbours, however many others there are.

    Returns:
        The images that could be read, at most about :data:`MOST_IMAGES`; None if there is none.
    """
    chosen = [rows.row(i, named=True) for i in chosen_images(rows["slice"].to_list(), keys)]
    wrapped = {
        series: series_is_wrapped(root, part.iter_rows(named=True))
        for (series,), part in rows.group_by("series")
    }
    pixels, kept = [], []
    for row in chosen:
        try:
            pixels.append(read_hu(root / row["file"], row, wrapped_series=wrapped[row["series"]]))
            kept.append(row)
        except ExclusionError:
            continue  # predict has reported it
    if not kept:
        return None
    side = min(size, max(max(each.shape) for each in pixels))
    about = CacheConfig(size=side, brain_hu=None, thin_mm=0.0)
    z_mm = [float(row["z_mm"]) for row in kept]
    hu = prepare(pixels, np.array(z_mm), about).hu
    spacing = (kept[0]["row_mm"], kept[0]["col_mm"])
    aspect = float(spacing[0] / spacing[1]) if all(spacing) else 1.0
    return Images([row["slice"] for row in kept], z_mm, hu, aspect)


def chosen_images(names: list[str], keys: Collection[str]) -> list[int]:
    """Indices of the images of a page: evenly spaced ones, key images, and the neighbours of these."""
    n = len(names)
    found = set(np.linspace(0, n - 1, min(n, MOST_IMAGES)).round().astype(int).tolist())
    for at in (i for i, name in enumerate(names) if name in keys):
        found |= {max(0, at - 1), at, min(n - 1, at + 1)}
    return sorted(found)


def picture(images: Images, at: int, window: str) -> str:
    """One image in a window as a PNG.

    Args:
        images: The images.
        at: Index of the image.
        window: Name in :data:`rsna_seq.imaging.windows.WINDOWS`.

    Returns:
        A ``data:`` address.
    """
    grey: NDArray[Any] = np.rint(apply_window(images.hu[at], *WINDOWS[window]) * 255).astype(np.uint8)
    if abs(images.aspect - 1) > 0.01:
        grey = cv2.resize(grey, (grey.shape[1], max(1, round(grey.shape[0] * images.aspect))))
    done, file = cv2.imencode(".png", grey)
    assert done, "a PNG of any array of bytes can be written"
    return "data:image/png;base64," + base64.b64encode(file.tobytes()).decode()


def packed(images: Images) -> str:
    """All HU as text for the viewer: low bytes, then high bytes, compressed by zlib, in base64."""
    stored = np.clip(images.hu, _LOWEST_HU, _HIGHEST_HU).view(np.uint16).ravel()
    planes = np.concatenate([stored & 0xFF, stored >> 8]).astype(np.uint8)  # smaller than byte by byte
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()
