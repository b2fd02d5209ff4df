"""Platt scaling: one linear map of the logit per class, fitted out of fold (Platt, 1999)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASSES

Line = tuple[float, float]
"""Slope and intercept."""
_STRENGTH = 1e3
"""Inverse regularisation strength: weak, but strong enough for a finite slope on separable logits."""


def fit_platt(logits: Floats, labels: NDArray[np.integer]) -> dict[str, Line]:
    """Fit slope and intercept of each class by maximum likelihood.

    Args:
        logits: (row, 6).
        labels: (row, 6) of 0 and 1.

    Returns:
        Slope and intercept by class. Classes with a single label, or whose slope is not positive, are left
        out.
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
    """Apply Platt scaling; classes that are not in ``lines`` stay unchanged.

    Args:
        logits: (row, 6).
        lines: Slope and intercept by class, from :func:`fit_platt`.

    Returns:
        (row, 6) logits.
    """
    moved = logits.copy()
    for name, (slope, intercept) in lines.items():
        c = CLASSES.index(name)
        moved[:, c] = slope * logits[:, c] + intercept
    return moved
