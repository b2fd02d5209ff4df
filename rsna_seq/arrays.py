"""Names of array types; the docstrings of functions give the shapes."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Probabilities, logits, losses, positions in mm."""
Hounsfield = NDArray[np.int16]
"""Pixels in Hounsfield units."""


def sigmoid(logits: Floats) -> Floats:
    """Convert logits to probabilities of the same shape, without overflow for large values.

    Args:
        logits: Any shape.
    """
    with np.errstate(over="ignore"):
        probabilities: Floats = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    return probabilities
