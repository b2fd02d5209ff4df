"""The competition's metric, and the calibration error of probabilities.

Source: RSNA Intracranial Hemorrhage Detection (2019), evaluation page.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASS_WEIGHTS


class Interval(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def class_log_loss(labels: NDArray[np.generic], probabilities: Floats, eps: float = 1e-15) -> Floats:
    """Compute the binary log loss of each slice and class.

    Args:
        labels: (slice, class) of 0 and 1; values in between are soft labels.
        probabilities: (slice, class).
        eps: Probabilities are clipped to [eps, 1 - eps].

    Returns:
        (slice, class) losses in nats.

    Raises:
        ValueError: The shapes differ.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), eps, 1 - eps)
    y = np.asarray(labels, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(
            f"labels have shape {y.shape}, probabilities {p.shape}; both must be (slice, class) and equal"
        )
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def log_loss(labels: NDArray[np.generic], probabilities: Floats) -> float:
    """Compute the official metric: binary log losses, weights 2/7 (any) and 1/7 (others), mean over slices.

    Args:
        labels: (slice, 6); slices with a label that is NaN or below 0 are left out, because it is unknown.
        probabilities: (slice, 6).

    Returns:
        The loss; NaN if there is no slice with six labels.
    """
    known = np.greater_equal(labels, 0).all(1)
    if not known.all():
        labels, probabilities = labels[known], probabilities[known]
    if not len(labels):
        return float("nan")
    return float((class_log_loss(labels, probabilities) @ CLASS_WEIGHTS).mean())


def slice_losses(labels: NDArray[np.generic], probabilities: Floats) -> Floats:
    """Compute the official metric of each slice, (slice,); the mean is :func:`log_loss`.

    Args:
        labels: (slice, 6); unknown classes (NaN) are left out, and the weights of the others sum to 1.
        probabilities: (slice, 6).

    Returns:
        The losses; NaN where no class is known.
    """
    known = np.isfinite(labels)
    if known.all():
        losses: Floats = class_log_loss(labels, probabilities) @ CLASS_WEIGHTS
        return losses
    weights = np.where(known, CLASS_WEIGHTS, 0)
    each = np.where(known, class_log_loss(labels, probabilities), 0)
    with np.errstate(invalid="ignore"):
        partial: Floats = (each * weights).sum(1) / weights.sum(1)
    return partial


def calibration_error(labels: NDArray[np.generic], probabilities: Floats, bins: int = 15) -> float:
    """Compute the expected calibration error of one class over bins of equal count.

    Args:
        labels: (slice,) of 0 and 1.
        probabilities: (slice,).
        bins: Number of bins.

    Source: Nixon et al., Measuring Calibration in Deep Learning, CVPR workshops 2019 (adaptive bins).
    """
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(labels[part].mean() - probabilities[part].mean()) * len(part) for part in parts]
    return float(np.sum(gaps) / len(order))
