"""Calibration: a line a class from logit to logit, fitted where it was not used (Platt, 1999)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASSES

Line = tuple[float, float]
"""Slope and intercept."""
_STRENGTH = 1e3
"""Inverse of the regularisation: hardly any, but enough that separable logits keep a finite slope."""


def fit_platt(logits: Floats, labels: NDArray[np.integer]) -> dict[str, Line]:
    """Fit the line of each class by maximum likelihood.

    Args:
        logits: (row, 6).
        labels: (row, 6) of 0 and 1.

    Returns:
        Lines by class; a class without both answers, or whose slope would not rise, has none.
    """
    lines = {}
    for c, name in enumerate(CLASSES):
        if len(np.unique(labels[:, c])) < 2:
            continue
        found = LogisticRegression(C=_STRENGTH).fit(logits[:, [c]], labels[:, c])
        slope, intercept = float(found.coef_[0, 0]), float(found.intercept_[0])
        if slope > 0:
            lines[name] = (slope, intercept)
    return lines


def apply_platt(logits: Floats, lines: dict[str, Line]) -> Floats:
    """Put logits on their classes' lines; a class without one stays.

    Args:
        logits: (row, 6).
        lines: Slope and intercept by class.

    Returns:
        (row, 6) logits.
    """
    moved = logits.copy()
    for name, (slope, intercept) in lines.items():
        c = CLASSES.index(name)
        moved[:, c] = slope * logits[:, c] + intercept
    return moved
