"""Noise of a study: how much neighbouring pixels of brain tissue differ, in HU."""

import cv2
import numpy as np
from numpy.typing import NDArray

_SLABS = 8
"""Largest number of slabs that are measured, evenly spread over the middle half of the study."""
_BLUR_PX = 2.0
"""Standard deviation of the blur before pixels are compared with the mode, so that noise is not cut off."""
_NEAR_HU = 15.0
"""Largest distance of the blurred value from the mode: excludes CSF, clots and bone."""
_LEAST_PIXELS = 200
"""Smallest number of pixels of brain tissue for a measurement."""
_MAD = 1.4826
"""Standard deviation of a normal distribution, divided by its median absolute deviation."""


def brain_noise(hu: NDArray[np.int16], mode: float) -> float | None:
    """Measure the noise in brain tissue: the robust standard deviation of HU minus their 3 x 3 mean.

    The value depends on the size of the pixels, so only studies of one cache can be compared.

    Args:
        hu: (slab, y, x) HU, lowest slab first.
        mode: Mode of brain tissue in these pixels, in HU.

    Returns:
        The noise in HU; None where there is too little brain tissue.
    """
    quarter = len(hu) // 4
    middle = np.arange(quarter, max(len(hu) - quarter, quarter + 1))
    chosen = middle[np.unique(np.linspace(0, len(middle) - 1, _SLABS).round().astype(int))]
    found = np.concatenate([_residuals(hu[i].astype(np.float32), mode) for i in chosen])
    if len(found) < _LEAST_PIXELS:
        return None
    return float(_MAD * np.median(np.abs(found - np.median(found))))


def _residuals(hu: NDArray[np.float32], mode: float) -> NDArray[np.float32]:
    """HU minus their 3 x 3 mean, of the pixels of brain tissue, away from its edges."""
    brain = np.abs(cv2.GaussianBlur(hu, (0, 0), _BLUR_PX) - mode) < _NEAR_HU
    inside = cv2.erode(brain.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    rest: NDArray[np.float32] = (hu - cv2.blur(hu, (3, 3)))[inside]
    return rest
