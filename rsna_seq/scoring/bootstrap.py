"""Bootstrap over patients, sampled once and shared by all figures of a report.

Patients are resampled, not slices, because slices of one head are not independent (Field & Welsh, J R Stat
Soc B 2007). All figures use the same bootstrap samples, so the interval of a difference is paired.
"""

import copy

import numpy as np
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.scoring.metric import Interval


class Bootstrap:
    """Bootstrap samples of patients.

    Args:
        patients: (row,) patient ids of the scored rows, which are slices or studies.
        samples: Number of bootstrap samples.
        seed: Seed; equal seeds and patients give equal samples.

    Raises:
        ValueError: There is no row.
    """

    def __init__(self, patients: NDArray[np.generic], samples: int = 1000, seed: int = 0) -> None:
        if len(patients) == 0:
            raise ValueError("an interval needs at least one slice")
        self.names, self._group = np.unique(patients, return_inverse=True)
        n = len(self.names)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=samples)
        self._drawn: Floats = drawn.astype(np.float64)

    def over(self, patients: NDArray[np.generic]) -> "Bootstrap":
        """The same bootstrap samples for other rows of the same patients, such as studies instead of slices.

        Args:
            patients: (row,) ids, all among the patients of this bootstrap.
        """
        other = copy.copy(self)
        other._group = np.searchsorted(self.names, patients)
        return other

    def mean(self, values: NDArray[np.generic], among: NDArray[np.bool_] | None = None) -> Interval:
        """Compute the mean of a figure and its 95 % interval.

        Args:
            values: (row,) figures; for a paired difference, the difference of two models' losses.
            among: (row,) mask of the rows to include; None includes all.

        Raises:
            ValueError: No row is included.
        """
        rows = np.ones(len(values), dtype=bool) if among is None else among
        if not rows.any():
            raise ValueError("an interval needs at least one slice")
        values, group = np.asarray(values, dtype=np.float64)[rows], self._group[rows]
        total = np.bincount(group, weights=values, minlength=len(self.names))
        count = np.bincount(group, minlength=len(self.names))
        drawn = self._drawn @ count
        means = (self._drawn @ total)[drawn > 0] / drawn[drawn > 0]  # a sample may contain none of the rows
        return _interval(float(values.mean()), means)

    def auc(
        self, labels: NDArray[np.generic], scores: Floats, patients: NDArray[np.generic]
    ) -> Interval | None:
        """Compute the area under the ROC curve and its 95 % interval; None if only one label occurs.

        Args:
            labels: (row,) of 0 and 1.
            scores: (row,).
            patients: (row,) ids, all among the patients of this bootstrap; the rows may differ from those of
                ``mean``.

        Source: Hanley & McNeil, Radiology 1982: the share of correctly ordered pairs, ties counting half.
        """
        positive = np.asarray(labels).astype(bool)
        if positive.all() or not positive.any():
            return None
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
        up, group = positive[order], np.searchsorted(self.names, patients)[order]

        def area(weight: Floats) -> float:
            ups, downs = np.add.reduceat([weight * up, weight * ~up], starts, axis=1)
            pairs = ups.sum() * downs.sum()
            return float(ups @ (downs.cumsum() - downs / 2) / pairs) if pairs else np.nan

        drawn = np.array([area(draw[group]) for draw in self._drawn])
        return _interval(area(np.ones(len(order))), drawn[~np.isnan(drawn)])


def _interval(value: float, drawn: Floats) -> Interval:
    """Build the interval from the 2.5th and 97.5th percentiles; without samples it has zero width."""
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (value, value)
    return Interval(value, float(low), float(high))
