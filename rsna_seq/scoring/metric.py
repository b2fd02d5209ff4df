"""The competition's metric, and how well probabilities are calibrated.

Source: RSNA Intracranial Hemorrhage Detection (2019), evaluation page.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASS_WEIGHTS


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def class_log_loss(labels: NDArray[np.generic], probabilities: Floats, eps: float = 1e-15) -> Floats:
    """Binary log loss of each slice and class.

    Args:
        labels: (slice, class) of 0 and 1; values between are soft labels.
        probabilities: (slice, class).
        eps: Probabilities are clipped this far from 0 and 1.

    Returns:
        (slice, class) losses in nats.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), eps, 1 - eps)
    y = np.asarray(labels, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(f"labels are {y.shape}, probabilities {p.shape}; both are (slice, class)")
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def log_loss(labels: NDArray[np.generic], probabilities: Floats) -> float:
    """The official metric: binary log losses, weight 2 for any and 1 for the rest, over 7, mean of slices.

    Args:
        labels: (slice, 6).
        probabilities: (slice, 6).
    """
    return float((class_log_loss(labels, probabilities) @ CLASS_WEIGHTS).mean())


def slice_losses(labels: NDArray[np.generic], probabilities: Floats) -> Floats:
    """The official metric of each slice alone, (slice,); its mean is :func:`log_loss`."""
    losses: Floats = class_log_loss(labels, probabilities) @ CLASS_WEIGHTS
    return losses


def calibration_error(labels: NDArray[np.generic], probabilities: Floats, bins: int = 15) -> float:
    """Expected calibration error of one class, over bins of equal count.

    Args:
        labels: (slice,) of 0 and 1.
        probabilities: (slice,).
        bins: Bins of equal count.

    Source: Nixon et al., Measuring Calibration in Deep Learning, CVPR workshops 2019 (adaptive bins).
    """
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(labels[part].mean() - probabilities[part].mean()) * len(part) for part in parts]
    return float(np.sum(gaps) / len(order))
