"""Crop to the head, with one square for all slices of a study, and averaging of thin slices to slabs."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.volume import AIR_HU

_TISSUE_HU = -300
_TOGETHER = 4
_MARGIN = 0.03
"""Margin around the head, as a fraction of its larger side."""


def head_square(slices: Sequence[NDArray[np.int16]]) -> tuple[int, int, int]:
    """Find the square around the head, the same for all slices of a study.

    Table and headrest are thin: a morphological opening removes them, and the largest remaining component is
    the head.

    Args:
        slices: (y, x) HU each, all of the same shape.

    Returns:
        Left, top and side in pixels; the square may extend outside the image. The whole image if there is no
        head.
    """
    rows, columns = slices[0].shape
    # the head is where many slices have tissue; computed at an eighth of the size for speed
    step = max(1, min(rows, columns) // 64)
    share = (np.stack([hu[::step, ::step] for hu in slices]) > _TISSUE_HU).mean(axis=0)
    body = cv2.morphologyEx((share > 0.15).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(body)
    if count < 2:
        return 0, 0, max(rows, columns)
    x, y, width, height, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] * step
    side = round(max(width, height) * (1 + 2 * _MARGIN)) + 2 * step
    return int(x + width // 2 - side // 2), int(y + height // 2 - side // 2), int(side)


def crop_resize(
    slices: Sequence[NDArray[np.int16]],
    square: tuple[int, int, int],
    size: int,
    out: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Crop slices to the square and resize them: area interpolation if smaller, otherwise linear.

    If the ratio is not an integer, OpenCV resizes four slices at a time as the channels of one image: this
    takes the time of one and a half slices and gives the same values.

    Args:
        slices: (y, x) HU each, all of the same shape.
        square: Left, top and side in pixels; parts outside the image are filled with air.
        size: Rows and columns of the result.
        out: Output array.

    Returns:
        (slice, size, size) HU.
    """
    cut = [_cut(hu, square) for hu in slices]
    resized = np.empty((len(cut), size, size), dtype=np.int16) if out is None else out
    if square[2] == size:
        return np.stack(cut, out=resized)
    method = cv2.INTER_AREA if square[2] > size else cv2.INTER_LINEAR
    if square[2] % size == 0:
        for hu, small in zip(cut, resized, strict=True):
            cv2.resize(hu, (size, size), dst=small, interpolation=method)
        return resized
    for at in range(0, len(cut), _TOGETHER):
        some = cut[at : at + _TOGETHER]
        planes = cv2.resize(cv2.merge(some), (size, size), interpolation=method).reshape(size, size, -1)
        pairs = [number for k in range(len(some)) for number in (k, k)]
        cv2.mixChannels([planes], [resized[at + k, :, :, None] for k in range(len(some))], pairs)
    return resized


def _cut(hu: NDArray[np.int16], square: tuple[int, int, int]) -> NDArray[np.int16]:
    """Crop one slice to the square; parts outside the image are filled with air."""
    x, y, side = square
    inside = hu[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)]
    if inside.shape == (side, side):
        return inside
    whole = np.full((side, side), AIR_HU, dtype=np.int16)
    top, left = max(0, -y), max(0, -x)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return whole


def slab_numbers(z_mm: NDArray[np.float64], *, slab_mm: float, thin_mm: float) -> NDArray[np.int64]:
    """Assign each slice to a slab.

    Series with a median spacing below ``thin_mm`` are grouped into slabs of ``slab_mm``; in other series
    every slice is a slab.

    Args:
        z_mm: (slice,) positions, increasing.
        slab_mm: Thickness of a slab.
        thin_mm: Spacing below which a series is thin.

    Returns:
        (slice,) slab numbers from 0, non-decreasing.
    """
    if len(z_mm) < 2 or np.median(np.diff(z_mm)) >= thin_mm:
        return np.arange(len(z_mm))
    cell = np.floor((z_mm - z_mm[0]) / slab_mm + 1e-9).astype(np.int64)
    return np.unique(cell, return_inverse=True)[1]
