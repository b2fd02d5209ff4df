"""Scores of one set of slices, per model, class and study, with intervals."""

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

_EDGES = (0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 0.99, 1)
"""Bin edges of the reliability diagram, roughly even in logits, because most probabilities are close to 0."""
_LEAST = 5
"""Smallest number of slices for which a bin is reported."""


@dataclass(frozen=True)
class Scope:
    """Slices that are scored together: out of fold or held out.

    Attributes:
        labels: (slice, 6) of 0 and 1; NaN where unknown, in no row for all classes.
        patients: (slice,) ids, for the bootstrap.
        studies: (slice,) ids.
        models: (slice, 6) probabilities by model, in the order of the pipeline.
    """

    labels: NDArray[np.number]
    patients: NDArray[np.str_]
    studies: NDArray[np.str_]
    models: Mapping[str, Floats]

    @property
    def top(self) -> Floats:
        """(slice, 6) probabilities of the final model."""
        return list(self.models.values())[-1]

    def known(self, c: int) -> "Scope":
        """The slices with a label of one class."""
        rows = np.isfinite(self.labels[:, c])
        if rows.all():
            return self
        models = {name: p[rows] for name, p in self.models.items()}
        return Scope(self.labels[rows], self.patients[rows], self.studies[rows], models)


def score(scope: Scope, *, samples: int, seed: int) -> dict[str, Any]:
    """Compute all figures of one scope as plain data.

    Args:
        scope: Slices, labels and probabilities.
        samples: Number of bootstrap samples.
        seed: Seed of the bootstrap; all figures share its samples, so differences are paired.

    Returns:
        ``models``, ``differences`` (later model minus earlier), ``classes`` (``log_loss`` by model, the other
        figures of the final model, all figures of every model in ``models``, ``reliability`` of the CNN, the
        stack and the final model), ``study`` (AUC and calibration over
        studies) and ``counts``. Figures that are undefined because a class never occurs are None; a class
        without labels is not in ``classes``.
    """
    draws = Bootstrap(scope.patients, samples, seed)
    losses = {name: slice_losses(scope.labels, p) for name, p in scope.models.items()}
    return {
        "models": _each(losses, draws),
        "differences": _differences(losses, draws),
        "classes": {
            name: _class(known, c, draws if known is scope else draws.over(known.patients))
            for c, name in enumerate(CLASSES)
            if len((known := scope.known(c)).labels)
        },
        "study": _study(scope, draws),
        "counts": {
            "slices": len(scope.labels),
            **_partial(scope.labels),
            "studies": len(np.unique(scope.studies)),
            "patients": len(draws.names),
        },
    }


def _partial(labels: NDArray[np.number]) -> dict[str, int]:
    """Number of slices whose six labels are known; nothing if those are all."""
    complete = int(np.isfinite(labels).all(1).sum())
    return {"slices with six labels": complete} if complete < len(labels) else {}


def by_study(
    studies: NDArray[np.generic], *tables: NDArray[Any]
) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
    """Maxima over the slices of each study.

    Args:
        studies: (slice,) study of each.
        tables: (slice, n) values, such as probabilities or labels; NaN is ignored unless a study has nothing
            else.

    Returns:
        (study,) index of the first slice of each study, in sorted order, and (study, n) maxima of each table.
    """
    _, first, group = np.unique(studies, return_index=True, return_inverse=True)
    highest = []
    for table in tables:
        most = table[first]
        np.fmax.at(most, group, table)
        highest.append(most)
    return first, highest


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
    """Compute the figures of one class, for the final model and for each model."""
    truth = scope.labels[:, c]
    losses = {name: class_log_loss(truth[:, None], p[:, c : c + 1])[:, 0] for name, p in scope.models.items()}
    intervals = _each(losses, draws)
    models = {
        name: {**intervals[name], **_quality(truth, p[:, c], draws)} for name, p in scope.models.items()
    }
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


def reliability(
    truth: NDArray[np.generic], p: Floats, draws: Bootstrap, unit: str = "slices"
) -> list[dict[str, float]]:
    """Compute the reliability diagram of one class: observed frequency per bin of predicted probability.

    Args:
        truth: (row,) of 0 and 1; a row is a slice or a study.
        p: (row,) probabilities.
        draws: Bootstrap over the patients of these rows.
        unit: ``slices`` or ``studies``.

    Returns:
        One row per bin with enough slices or studies: ``predicted`` (mean probability), ``observed`` (share
        of positive ones), ``low``, ``high`` and their number under the name of the unit.
    """
    at = np.clip(np.searchsorted(_EDGES, p, side="right") - 1, 0, len(_EDGES) - 2)
    bins = []
    for i in np.unique(at):
        inside = at == i
        if inside.sum() >= _LEAST:
            share = _named(draws.mean(truth, inside), "observed")
            bins.append({"predicted": float(p[inside].mean()), **share, unit: int(inside.sum())})
    return bins


def _quality(truth: NDArray[np.number], p: Floats, draws: Bootstrap) -> dict[str, Any]:
    """Compute the figures of one class besides its log loss; areas are None if only one label occurs."""
    both = bool(0 < truth.sum() < len(truth))
    return {
        "auc": float(roc_auc_score(truth, p)) if both else None,
        "average_precision": float(average_precision_score(truth, p)) if both else None,
        **_calibration(truth, p, draws),
    }


def _calibration(truth: NDArray[np.number], p: Floats, draws: Bootstrap) -> dict[str, Any]:
    """Compute the Brier score of one class with its interval, and its calibration error."""
    brier = _named(draws.mean((p - truth) ** 2), "brier")
    return {
        "brier": brier["brier"],
        "brier_low": brier["low"],
        "brier_high": brier["high"],
        "calibration_error": calibration_error(truth, p),
    }


def _study(scope: Scope, draws: Bootstrap) -> dict[str, Any]:
    """Compute the figures over studies: the highest probability of a study against its label (any slice).

    Returns:
        The AUC of ``any`` for the final model and by model (``models``), the number of positive studies, and
        the calibration of the final model by class (``classes``).
    """
    first, (truth, *highest) = by_study(scope.studies, scope.labels, *scope.models.values())
    patients = scope.patients[first]
    models: dict[str, dict[str, float | None]] = {}
    for name, p in zip(scope.models, highest, strict=True):
        known = np.isfinite(truth[:, ANY])
        area = draws.auc(truth[known, ANY], p[known, ANY], patients[known])
        models[name] = dict.fromkeys(("auc_any", "low", "high"))
        if area is not None:
            models[name].update(_named(area, "auc_any"))
    classes, over_studies = {}, draws.over(patients)
    for c, name in enumerate(CLASSES):
        known = np.isfinite(truth[:, c])
        if known.any():
            drawn = over_studies if known.all() else draws.over(patients[known])
            classes[name] = _study_class(truth[known, c], highest[-1][known, c], drawn)
    return {
        **models[list(models)[-1]],
        "positive": int(np.nansum(truth[:, ANY])),
        "models": models,
        "classes": classes,
    }


def _study_class(truth: NDArray[np.number], p: Floats, draws: Bootstrap) -> dict[str, Any]:
    """Compute the figures of one class over the studies with a label of it."""
    return {
        "prevalence": float(truth.mean()),
        "positive": int(truth.sum()),
        **_calibration(truth, p, draws),
        "reliability": reliability(truth, p, draws, "studies"),
    }
