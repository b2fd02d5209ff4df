"""Scores of one set of slices: the ladder, the classes, the studies, each with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from rsna_seq.arrays import Floats
from rsna_seq.labels import ANY, CLASSES
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import Interval, calibration_error, class_log_loss, slice_losses

MODELS = ("prior", "cnn", "smoothed", "sequence", "stack", "calibrated")
"""The ladder, from below."""
_EDGES = (0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 0.99, 1)
"""Bins of the reliability diagram: even in logits, for most slices bleed nowhere and crowd near 0."""
_LEAST = 5
"""Slices below which a bin says nothing."""


@dataclass(frozen=True)
class Scope:
    """Slices that are scored together: out of fold, or held out.

    Attributes:
        labels: (slice, 6) of 0 and 1.
        patients: (slice,) ids, for the bootstrap.
        studies: (slice,) ids.
        models: (slice, 6) probabilities of each model that there is, from below.
    """

    labels: NDArray[np.int8]
    patients: NDArray[np.str_]
    studies: NDArray[np.str_]
    models: Mapping[str, Floats]

    @property
    def top(self) -> Floats:
        """(slice, 6) probabilities of the highest model."""
        return list(self.models.values())[-1]


def score(scope: Scope, *, samples: int, seed: int) -> dict[str, Any]:
    """All figures of one scope, as plain data.

    Args:
        scope: What is scored.
        samples: Bootstrap samples.
        seed: Seed of the bootstrap; one set of draws serves all figures, so differences are paired.

    Returns:
        ``ladder``, ``differences`` (later model minus earlier), ``classes`` (``log_loss`` by model, the other
        figures of the highest model, all of every model in ``models``, ``reliability`` of the CNN, of the
        stack and of the highest model), ``study`` and ``counts``. A figure that a class which never occurs
        cannot have is None.
    """
    draws = Bootstrap(scope.patients, samples, seed)
    losses = {name: slice_losses(scope.labels, p) for name, p in scope.models.items()}
    return {
        "models": _each(losses, draws),
        "differences": _differences(losses, draws),
        "classes": {name: _class(scope, c, draws) for c, name in enumerate(CLASSES)},
        "study": _study(scope, draws),
        "counts": {
            "slices": len(scope.labels),
            "studies": len(np.unique(scope.studies)),
            "patients": len(draws.names),
        },
    }


def _each(losses: Mapping[str, Floats], draws: Bootstrap) -> dict[str, dict[str, float]]:
    return {name: _named(draws.mean(loss), "log_loss") for name, loss in losses.items()}


def _differences(losses: Mapping[str, Floats], draws: Bootstrap) -> dict[str, dict[str, float]]:
    return {
        f"{a}->{b}": _named(draws.mean(losses[b] - losses[a]), "difference")
        for a, b in combinations(losses, 2)
    }


def _named(interval: Interval, key: str) -> dict[str, float]:
    return {key: interval.value, "low": interval.low, "high": interval.high}


def _class(scope: Scope, c: int, draws: Bootstrap) -> dict[str, Any]:
    """Figures of one class: of the highest model, and model by model."""
    truth = scope.labels[:, c]
    losses = {name: class_log_loss(truth[:, None], p[:, c : c + 1])[:, 0] for name, p in scope.models.items()}
    intervals = _each(losses, draws)
    models = {name: {**intervals[name], **_quality(truth, p[:, c])} for name, p in scope.models.items()}
    top = {k: v for k, v in models[list(models)[-1]].items() if k not in {"low", "high"}}
    return {
        "prevalence": float(truth.mean()),
        "positive": int(truth.sum()),
        **top,
        "log_loss": {name: figures["log_loss"] for name, figures in intervals.items()},
        "models": models,
        "differences": _differences(losses, draws),
        "reliability": {
            name: reliability(truth, scope.models[name][:, c], draws)
            for name in dict.fromkeys(("cnn", "stack", list(models)[-1]))
            if name in models
        },
    }


def reliability(truth: NDArray[np.generic], p: Floats, draws: Bootstrap) -> list[dict[str, float]]:
    """The reliability diagram of one class: how often it is there where it is given such a probability.

    Args:
        truth: (slice,) of 0 and 1.
        p: (slice,) probabilities.
        draws: Bootstrap over the patients of these slices.

    Returns:
        For each bin of some slices ``predicted`` (mean), ``observed`` (share), ``low``, ``high``, ``slices``.
    """
    at = np.clip(np.searchsorted(_EDGES, p, side="right") - 1, 0, len(_EDGES) - 2)
    bins = []
    for i in np.unique(at):
        inside = at == i
        if inside.sum() >= _LEAST:
            share = _named(draws.mean(truth, inside), "observed")
            bins.append({"predicted": float(p[inside].mean()), **share, "slices": int(inside.sum())})
    return bins


def _quality(truth: NDArray[np.int8], p: Floats) -> dict[str, float | None]:
    """What can be said of one class beyond its log loss; scikit-learn has no areas for one label alone."""
    both = bool(0 < truth.sum() < len(truth))
    return {
        "auc": float(roc_auc_score(truth, p)) if both else None,
        "average_precision": float(average_precision_score(truth, p)) if both else None,
        "brier": float(np.mean((p - truth) ** 2)),
        "calibration_error": calibration_error(truth, p),
    }


def _study(scope: Scope, draws: Bootstrap) -> dict[str, Any]:
    """Area under the ROC curve of studies: the highest ``any`` of a study against whether it bleeds."""
    names, first, group = np.unique(scope.studies, return_index=True, return_inverse=True)
    truth = np.zeros(len(names), dtype=np.int8)
    np.maximum.at(truth, group, scope.labels[:, ANY])
    models: dict[str, dict[str, float | None]] = {}
    for name, p in scope.models.items():
        highest = np.zeros(len(names))
        np.maximum.at(highest, group, p[:, ANY])
        area = draws.auc(truth, highest, scope.patients[first])
        models[name] = dict.fromkeys(("auc_any", "low", "high"))
        if area is not None:
            models[name].update(_named(area, "auc_any"))
    return {**models[list(models)[-1]], "positive": int(truth.sum()), "models": models}
