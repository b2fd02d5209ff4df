"""Temperature scaling: one factor for the logits of all classes, fitted out of fold.

Source: Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks, ICML 2017. One factor for six
classes instead of a line for each: rare classes have too few positive patients to fit a line of their own.
"""

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.labels import CLASS_WEIGHTS

_STEPS = 50
_CONVERGED = 1e-10
"""Step of the Newton iteration, in log temperature, below which it ends."""
_LIMIT = np.log(20.0)
"""Largest absolute log temperature: logits that separate the labels would have a temperature of 0."""


def fit_temperature(logits: Floats, labels: NDArray[np.number]) -> float:
    """Fit the temperature that minimises the official log loss of ``logits / temperature``.

    The loss is convex in 1 / temperature; it is minimised by Newton's method with bisection.

    Args:
        logits: (row, 6).
        labels: (row, 6) of 0 and 1; rows with a class that is unknown (NaN) are left out.

    Returns:
        The temperature, from 1/20 to 20; 1 if there is no row.
    """
    known = np.isfinite(labels).all(1)
    if not known.all():
        logits, labels = logits[known], labels[known]
    if len(logits) == 0:
        return 1.0
    low, high, at = float(np.exp(-_LIMIT)), float(np.exp(_LIMIT)), 1.0
    for _ in range(_STEPS):
        p = sigmoid(at * logits)
        slope = float(((p - labels) * logits @ CLASS_WEIGHTS).sum())
        bend = float((p * (1 - p) * logits**2 @ CLASS_WEIGHTS).sum())
        low, high = (low, at) if slope > 0 else (at, high)
        newton = at - slope / bend if bend > 0 else np.nan
        following = newton if low <= newton <= high else float(np.sqrt(low * high))
        if abs(np.log(following / at)) < _CONVERGED:
            break
        at = following
    return 1 / at


def cross_temperatures(
    logits: Floats, labels: NDArray[np.number], own: NDArray[np.integer], folds: list[int]
) -> tuple[Floats, float]:
    """Scale the logits of each fold by the temperature of the others, those of unseen rows by that of all.

    Args:
        logits: (row, 6) out-of-fold logits.
        labels: (row, 6) of 0 and 1.
        own: (row,) crossed fold of the row's patient; -1 is held out, and nothing is fitted on it.
        folds: The crossed folds.

    Returns:
        (row, 6) scaled logits, and the temperature for unseen studies.
    """
    of_all = fit_temperature(logits[own >= 0], labels[own >= 0])
    scaled = logits / of_all
    for fold in folds:
        others, mine = (own >= 0) & (own != fold), own == fold
        scaled[mine] = logits[mine] / fit_temperature(logits[others], labels[others])
    return scaled, of_all
