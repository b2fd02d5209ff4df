"""A slice with a map of where a class was found, as a PNG."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging.windows import WINDOWS, apply_window
from rsna_seq.report.canvas import COLOURS

_OPACITY = 0.45
_SMALLEST = 0.15
"""Share of the maximum from which the map is coloured."""


def overlay_png(
    hu: NDArray[np.int16],
    found: NDArray[np.float32],
    name: str,
    *,
    square: tuple[int, int, int] | None = None,
    window: str = "brain",
    side: int = 384,
) -> bytes:
    """Draw a slice in a window, coloured by a map, with a circle around the map's maximum.

    Args:
        hu: (y, x) HU of the slice: the original image, or the crop that the network saw.
        found: (rows, columns) map of the crop, 0 to 1.
        name: The class, which gives the colour.
        square: Left, top and side of the crop in pixels of ``hu``; None if ``hu`` is the crop.
        window: Name of the window.
        side: Rows and columns of the picture, which shows the crop.
    """
    left, top, extent = square or (0, 0, hu.shape[0])
    # pixel centres of the picture in pixels of the slice; outside the slice it is black
    scale = side / extent
    shift = (-left * scale + (scale - 1) / 2, -top * scale + (scale - 1) / 2)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    grey = apply_window(hu, *WINDOWS[window])
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
    assert done
    return data.tobytes()
