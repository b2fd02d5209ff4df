"""Scores of one set of slices: the ladder, the classes, the studies, each with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from rsna_seq.labels import ANY, CLASSES
from rsna_seq.metric import Interval, calibration_error, class_log_loss, patient_bootstrap, slice_losses

Floats = NDArray[np.float64]
RUNGS = ("prior", "cnn", "smoothed", "sequence", "stack")
"""The ladder, from below."""


@dataclass(frozen=True)
class Scope:
    """Slices that are scored together: out of fold, or held out.

    Attributes:
        labels: (slice, 6) of 0 and 1.
        patients: (slice,) ids, for the bootstrap.
        studies: (slice,) ids.
        rungs: (slice, 6) probabilities of each rung that there is, from below.
    """

    labels: NDArray[np.int8]
    patients: NDArray[np.str_]
    studies: NDArray[np.str_]
    rungs: Mapping[str, Floats]


def score(scope: Scope, *, samples: int, seed: int) -> dict[str, Any]:
    """All figures of one scope, as plain data.

    Args:
        scope: What is scored.
        samples: Bootstrap samples.
        seed: Seed of the bootstrap; it pairs the intervals.

    Returns:
        ``ladder``, ``differences``, ``classes``, ``study`` and ``counts``; a figure that a class which never
        occurs cannot have is None.
    """
    losses = {name: slice_losses(scope.labels, p) for name, p in scope.rungs.items()}

    def interval(values: Floats, key: str) -> dict[str, float]:
        return _named(patient_bootstrap(values, scope.patients, samples, seed), key)

    names = list(losses)
    steps = [*pairwise(names), *_far_steps(names)]
    return {
        "ladder": {name: interval(loss, "log_loss") for name, loss in losses.items()},
        "differences": {
            f"{a}->{b}": interval(losses[b] - losses[a], "difference") for a, b in dict.fromkeys(steps)
        },
        "classes": {name: _class(scope, c) for c, name in enumerate(CLASSES)},
        "study": _study(scope, samples, seed),
        "counts": {
            "slices": len(scope.labels),
            "studies": len(np.unique(scope.studies)),
            "patients": len(np.unique(scope.patients)),
        },
    }


def _far_steps(names: list[str]) -> list[tuple[str, str]]:
    """Comparisons that skip a rung: the sequence model against the CNN it refines, and top against bottom."""
    wanted = [("cnn", "sequence"), ("cnn", "stack")]
    return [(a, b) for a, b in wanted if a in names and b in names]


def _named(interval: Interval, key: str) -> dict[str, float]:
    return {key: interval.value, "low": interval.low, "high": interval.high}


def _class(scope: Scope, c: int) -> dict[str, Any]:
    """Figures of one class, of the highest rung, and its log loss on every rung."""
    truth = scope.labels[:, c]
    top = list(scope.rungs.values())[-1][:, c]
    both = 0 < truth.sum() < len(truth)
    return {
        "prevalence": float(truth.mean()),
        "log_loss": {
            name: float(class_log_loss(truth[:, None], p[:, c : c + 1]).mean())
            for name, p in scope.rungs.items()
        },
        "auc": float(roc_auc_score(truth, top)) if both else None,
        "average_precision": float(average_precision_score(truth, top)) if both else None,
        "brier": float(brier_score_loss(truth, top, labels=[0, 1])) if both else float((top**2).mean()),
        "calibration_error": calibration_error(truth, top),
    }


def _study(scope: Scope, samples: int, seed: int) -> dict[str, float | None]:
    """Area under the ROC curve of studies: the highest ``any`` of a study against whether it bleeds."""
    top = list(scope.rungs.values())[-1][:, ANY]
    names, group = np.unique(scope.studies, return_inverse=True)
    truth, score_ = np.zeros(len(names), dtype=int), np.zeros(len(names))
    np.maximum.at(truth, group, scope.labels[:, ANY])
    np.maximum.at(score_, group, top)
    if not 0 < truth.sum() < len(truth):
        return {"auc_any": None, "low": None, "high": None, "positive": int(truth.sum())}
    random = np.random.default_rng(seed)
    draws = (random.integers(len(names), size=len(names)) for _ in range(samples))
    areas = [roc_auc_score(truth[d], score_[d]) for d in draws if 0 < truth[d].sum() < len(d)]
    low, high = np.percentile(areas, [2.5, 97.5])
    auc = float(roc_auc_score(truth, score_))
    return {"auc_any": auc, "low": float(low), "high": float(high), "positive": int(truth.sum())}
