"""Where the inside of the skull is in a slice."""

import cv2
import numpy as np
from numpy.typing import NDArray

_BONE_HU, _TISSUE_HU = 200, -200
_SMALLEST = 0.08
"""Smallest share of the head that an enclosed inside has; below it the skull is open in the slice."""
_WALL = 0.08
"""Thickness of scalp and skull as a share of the head's width, where the skull is open."""


def inside_skull(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Find the pixels that bone encloses.

    Where the bone leaves gaps, as near the skull base, gaps of a few pixels are closed. A slice without an
    enclosed inside gets the head without its outer layer.

    Args:
        hu: (y, x) HU of a slice.

    Returns:
        (y, x) mask.
    """
    bone = (hu > _BONE_HU).astype(np.uint8)
    head = _largest((hu > _TISSUE_HU).astype(np.uint8))
    side = max(3, round(len(hu) / 40)) | 1
    closed = cv2.morphologyEx(bone, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    wall: NDArray[np.uint8] = closed.astype(np.uint8)
    around = np.pad(wall, 1)  # so that the outside is one region
    cv2.floodFill(around, None, (0, 0), 1)
    inside: NDArray[np.bool_] = ((around[1:-1, 1:-1] == 0) | (wall == 1)) & (bone == 0)
    inside &= _largest(inside.astype(np.uint8)) == 1
    if inside.sum() >= _SMALLEST * max(1, head.sum()):
        return inside
    width = int(np.ptp(np.flatnonzero(head.any(axis=0)))) if head.any() else 0
    layer = max(1, round(_WALL * width))
    eroded = cv2.erode(_filled(head), np.ones((2 * layer + 1, 2 * layer + 1), np.uint8))
    found: NDArray[np.bool_] = (eroded == 1) & (bone == 0)
    return found


def _largest(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest connected region of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    largest: NDArray[np.uint8] = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    return largest


def _filled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask with its holes."""
    around = np.pad(mask, 1)
    cv2.floodFill(around, None, (0, 0), 2)
    filled: NDArray[np.uint8] = (around[1:-1, 1:-1] != 2).astype(np.uint8)
    return filled
