"""Gaussian smoothing along z in mm: the baseline for the sequence model."""

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats


def smooth_along_z(values: Floats, z_mm: NDArray[np.floating], sigma_mm: float) -> Floats:
    """Average each slab of a study with the other slabs, weighted by a Gaussian of their distance.

    Args:
        values: (slab, class), such as probabilities.
        z_mm: (slab,) positions in mm.
        sigma_mm: Standard deviation of the Gaussian in mm.

    Returns:
        (slab, class).
    """
    away = (np.subtract.outer(z_mm, z_mm) / sigma_mm) ** 2
    weight = np.exp(-0.5 * away)
    smoothed: Floats = (weight @ values) / weight.sum(axis=1, keepdims=True)
    return smoothed
