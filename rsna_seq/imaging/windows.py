"""Window level and width: from Hounsfield units to what an eye can tell apart."""

import numpy as np
from numpy.typing import NDArray

WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (80, 200),
    "bone": (600, 2800),
}
"""Level and width in HU of the windows in which a head CT is read."""


def apply_window(hu: NDArray[np.generic], level: float, width: float) -> NDArray[np.float32]:
    """Map HU to 0..1: 0 at and below the window, 1 at and above it.

    Args:
        hu: HU, any shape.
        level: Centre of the window, in HU.
        width: Its width, in HU.
    """
    low = level - width / 2
    shown: NDArray[np.float32] = np.clip((hu.astype(np.float32) - low) / np.float32(width), 0, 1)
    return shown
