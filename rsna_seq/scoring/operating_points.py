"""Thresholds for the probabilities of studies, chosen out of fold, with sensitivity and specificity.

1. A study's probability is the highest of its slices, and a study has a class if one of its slices has it.
2. :func:`choose` takes two thresholds per class on the development studies, each predicted by networks that
   did not see its patient: the highest with a sensitivity of at least 95 %, and the one with the largest
   sum of sensitivity and specificity (Youden, Cancer 1950).
3. :func:`operating_points` never scores a threshold on the studies by which it was chosen: the out-of-fold
   figures of a fold use the threshold of the other folds, and the held-out figures that of all folds.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rsna_seq.arrays import Floats
from rsna_seq.labels import CLASSES

Criterion = Literal["sensitivity95", "youden"]
CRITERIA: tuple[Criterion, ...] = ("sensitivity95", "youden")
"""How a threshold is chosen."""
FILE = "operating_points.json"
"""File of ``evaluate``."""
_SENSITIVITY = 0.95
_LEAST = 5
"""Smallest number of studies with, and without, a class by which a threshold is chosen."""
_ENOUGH = 20
"""Smallest number of held-out studies with, and without, a class for which their figures are shown."""
_Z = 1.959963985
"""Quantile of the normal distribution for a 95 % interval."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Rate(_Plain):
    """A share of studies with its 95 % interval (Wilson, because a bootstrap of 42 of 42 has no width)."""

    value: float
    low: float
    high: float
    right: int
    """Number of studies on the right side of the threshold."""
    of: int
    """Number of studies."""

    @classmethod
    def of_counts(cls, right: int, of: int) -> "Rate":
        """The share ``right / of`` with its interval; ``of`` is at least 1."""
        share, extra = right / of, _Z**2 / of
        middle = (share + extra / 2) / (1 + extra)
        half = _Z / (1 + extra) * np.sqrt(share * (1 - share) / of + extra / (4 * of))
        low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
        return cls(value=share, low=min(low, share), high=max(high, share), right=right, of=of)


class Figures(_Plain):
    """Sensitivity and specificity over studies."""

    sensitivity: Rate
    specificity: Rate


class OperatingPoint(_Plain):
    """A threshold of one class, and what it does to studies that did not choose it."""

    threshold: float
    """A study is positive if its highest probability is above this."""
    out_of_fold: Figures | None = None
    """Development studies: the studies of a fold with the threshold that the other folds choose."""
    held_out: Figures | None = None
    """Studies of held-out patients, with this threshold and the mean over all networks, as in ``predict``."""

    @property
    def scope(self) -> Literal["held_out", "out_of_fold"] | None:
        """Whose figures are shown: held-out ones if there are at least 20 studies of either kind."""
        held = self.held_out
        enough = held is not None and min(held.sensitivity.of, held.specificity.of) >= _ENOUGH
        if self.out_of_fold is not None and not enough:
            return "out_of_fold"
        return "held_out" if held is not None else None

    @property
    def figures(self) -> Figures | None:
        """The figures of :attr:`scope`."""
        return {"held_out": self.held_out, "out_of_fold": self.out_of_fold, None: None}[self.scope]


class OperatingPoints(_Plain):
    """``operating_points.json``: by criterion and class; a class with too few studies has none."""

    criteria: dict[Criterion, dict[str, OperatingPoint]]


def choose(truth: NDArray[np.generic], p: Floats, criterion: Criterion) -> float | None:
    """Choose the threshold of one class.

    Args:
        truth: (study,) of 0 and 1; NaN where unknown.
        p: (study,) probabilities.
        criterion: How.

    Returns:
        A threshold half-way between two probabilities; None if fewer than five studies have the class, or do
        not have it.
    """
    from sklearn.metrics import roc_curve  # here, because readers of the file need no scikit-learn

    known = np.isfinite(truth)
    if not known.all():
        truth, p = truth[known], p[known]
    positive = int(np.sum(truth))
    if min(positive, len(truth) - positive) < _LEAST:
        return None
    false, true, cuts = roc_curve(truth, p, drop_intermediate=False)
    if criterion == "sensitivity95":
        at = int(np.argmax(true >= _SENSITIVITY - 1e-9))
    else:
        at = 1 + int(np.argmax((true - false)[1:]))  # the first cut is above every probability
    below = cuts[at + 1] if at + 1 < len(cuts) else 0.0
    return float((cuts[at] + below) / 2)


def figures(truth: NDArray[np.generic], above: NDArray[np.bool_]) -> Figures | None:
    """Sensitivity and specificity; None unless there are studies with and without the class.

    Args:
        truth: (study,) of 0 and 1; NaN where unknown.
        above: (study,) whether the probability is above the threshold.
    """
    known = np.isfinite(truth)
    has, above = np.asarray(truth)[known].astype(bool), above[known]
    if has.all() or not has.any():
        return None
    return Figures(
        sensitivity=Rate.of_counts(int((above & has).sum()), int(has.sum())),
        specificity=Rate.of_counts(int((~above & ~has).sum()), int((~has).sum())),
    )


def operating_points(truth: NDArray[np.generic], p: Floats, folds: NDArray[np.integer]) -> OperatingPoints:
    """Choose the thresholds of all classes, and score them on other studies.

    Args:
        truth: (study, 6) of 0 and 1; NaN where unknown.
        p: (study, 6) highest probability of the final model.
        folds: (study,) fold of the patient; -1 is held out.
    """
    criteria: dict[Criterion, dict[str, OperatingPoint]] = {}
    held = folds < 0
    for criterion in CRITERIA:
        points = criteria.setdefault(criterion, {})
        for c, name in enumerate(CLASSES):
            threshold = choose(truth[~held, c], p[~held, c], criterion)
            if threshold is not None:
                points[name] = OperatingPoint(
                    threshold=threshold,
                    out_of_fold=_crossed(truth[~held, c], p[~held, c], folds[~held], criterion),
                    held_out=figures(truth[held, c], p[held, c] > threshold),
                )
    return OperatingPoints(criteria=criteria)


def _crossed(
    truth: NDArray[np.generic], p: Floats, folds: NDArray[np.integer], criterion: Criterion
) -> Figures | None:
    """Figures in which each fold has the threshold that the other folds choose."""
    above = np.zeros(len(p), dtype=bool)
    for fold in np.unique(folds):
        mine = folds == fold
        threshold = choose(truth[~mine], p[~mine], criterion)
        if threshold is None:
            return None
        above[mine] = p[mine] > threshold
    return figures(truth, above)


def predictive_values(found: Figures, prevalence: float) -> tuple[float | None, float | None]:
    """Positive and negative predictive value at a prevalence, by Bayes' rule; None if undefined.

    Args:
        found: Sensitivity and specificity.
        prevalence: Share of the studies that have the class.
    """
    sensitivity, specificity = found.sensitivity.value, found.specificity.value
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    clear, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    positive = true / (true + false) if true + false else None
    negative = clear / (clear + missed) if clear + missed else None
    return positive, negative
