"""Slices that are stored as two windowed 8-bit JPEG images: HU as far as they can be recovered.

Version 1.2 and earlier of PhysioNet's ct-ich has no HU, but the frames of two videos: a brain window (level
40, width 120) and a bone window (level 700, width 3200). What can be recovered:

- from -20 to 100 HU the brain window gives steps of 0.5 HU (and errors of JPEG, a few HU at edges);
- elsewhere the bone window gives steps of 12.5 HU, from -900 to 2300 HU; air becomes -900.

Without the bone window everything outside of -20 to 100 HU is unknown, bone and air look alike to a network,
and the slice is refused.
"""

from pathlib import PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.headers.fields import COLUMNS, Header
from rsna_seq.imaging.nifti import plain_pixels
from rsna_seq.imaging.whole_file import read_whole
from rsna_seq.reasons import ExclusionError, Reason

SYNTAX = "jpeg-windows"
"""Value of ``transfer_syntax`` of such slices."""
BRAIN, BONE = (40, 120), (700, 3200)
"""Level and width in HU of both windows, as the data set's description states them."""
_FOLDERS = ("brain", "bone")
_LARGEST = 64 << 20
_SATURATED = 4
"""Grey values this close to 0 or 255 are taken for saturated: JPEG moves them."""
_MOST_ROWS = 8192


def bone_of(brain: str) -> str:
    """Path of the bone window that belongs to ``.../brain/N.jpg``."""
    path = PurePosixPath(brain)
    return str(path.parent.parent / _FOLDERS[1] / path.name)


def read_jpeg_header(path: str) -> Header:
    """Read the header of a slice; identifiers and position are left to the caller.

    Args:
        path: The brain window, ``.../brain/N.jpg``.

    Raises:
        ExclusionError: One of the two images is missing or cannot be read, or their sizes differ.
    """
    rows, columns = _windows(path)[0].shape
    header: Header = dict.fromkeys(COLUMNS)
    return header | {"frame": 0} | plain_pixels(SYNTAX, rows, columns) | {"lossy": True}


def read_jpeg_hu(path: str, out: NDArray[np.int16]) -> NDArray[np.int16]:
    """Recover the HU of a slice from its two windows.

    Args:
        path: The brain window, ``.../brain/N.jpg``.
        out: (row, column) array that receives the values.

    Raises:
        ExclusionError: As :func:`read_jpeg_header`, or the size differs from the header.
    """
    brain, bone = _windows(path)
    if brain.shape != out.shape:
        raise ExclusionError(Reason.FILE_CHANGED, f"{brain.shape} pixels, {out.shape} when indexed")
    soft, hard = _hu(brain, BRAIN), _hu(bone, BONE)
    inside = (brain > _SATURATED) & (brain < 255 - _SATURATED)
    # a saturated grey value says on which side of the window the pixel lies; the bone window says how far
    low, high = BRAIN[0] - BRAIN[1] / 2, BRAIN[0] + BRAIN[1] / 2
    outside = np.where(brain < 128, np.minimum(hard, low), np.maximum(hard, high))
    out[...] = np.rint(np.where(inside, soft, outside))
    return out


def _hu(grey: NDArray[np.uint8], window: tuple[int, int]) -> NDArray[np.float64]:
    level, width = window
    return grey.astype(np.float64) * (width / 255) + (level - width / 2)


def _windows(path: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both images, grey."""
    brain, bone = (_grey(p) for p in (path, bone_of(path)))
    if brain.shape != bone.shape:
        detail = f"brain window {brain.shape}, bone window {bone.shape}"
        raise ExclusionError(Reason.BAD_DIMENSIONS, detail)
    return brain, bone


def _grey(path: str) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(read_whole(path, _LARGEST), dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except ExclusionError as error:
        error.detail = f"{PurePosixPath(path).parent.name} window: {error.detail}"
        raise
    except cv2.error as error:
        raise ExclusionError(Reason.PIXELS_UNDECODABLE, "JPEG") from error
    if image is None:
        raise ExclusionError(Reason.PIXELS_UNDECODABLE, "JPEG")
    if max(image.shape) > _MOST_ROWS:
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"{image.shape[0]:,} x {image.shape[1]:,} pixels")
    return image.astype(np.uint8, copy=False)
