"""A slice with a map of where a class was found, as a PNG."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.labels import COLOURS

_SIDE = 384
"""Rows and columns of the picture."""
_OPACITY = 0.6
_SMALLEST = 0.15
"""Share of the maximum from which the map is coloured."""


def overlay(
    hu: NDArray[np.generic], found: NDArray[np.float32], name: str, square: tuple[int, int, int]
) -> str:
    """Draw a slice in the subdural window, coloured by a map, with a circle around the map's maximum.

    Args:
        hu: (row, column) HU of the slice.
        found: (y, x) map of the crop that the networks see, 0 to 1.
        name: The class, which gives the colour.
        square: Left, top and side of the crop in pixels of ``hu``; the picture shows the crop.

    Returns:
        A PNG as a ``data:`` address.
    """
    (left, top, extent), side = square, _SIDE
    # pixel centres of the picture in pixels of the slice; outside the slice it is black
    scale = side / extent
    shift = (-left * scale + (scale - 1) / 2, -top * scale + (scale - 1) / 2)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    grey = apply_window(hu, *WINDOWS["subdural"])
    drawn = cv2.warpAffine(grey, matrix, (side, side), flags=cv2.INTER_LINEAR)
    large = np.clip(cv2.resize(found, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    colour = np.array([int(COLOURS[name][i : i + 2], 16) for i in (5, 3, 1)])  # blue, green, red
    alpha = (_OPACITY * np.clip((large - _SMALLEST) / (1 - _SMALLEST), 0, 1))[..., None]
    picture = np.rint(255 * drawn[..., None] * (1 - alpha) + colour * alpha).astype(np.uint8)
    if found.any():
        row, column = np.unravel_index(int(found.argmax()), found.shape)
        at = tuple(round((v + 0.5) * side / found.shape[0]) for v in (column, row))
        cv2.circle(picture, at, side // 24, (255, 255, 255), 1, cv2.LINE_AA)
    done, data = cv2.imencode(".png", picture)
    assert done, "a PNG of any array of bytes can be written"
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
