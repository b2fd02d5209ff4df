"""How far a study lies from the training data: a few numbers of a study, compared with those of training.

:mod:`rsna_seq.scoring.training_studies` measures a study and writes the training studies; :class:`Training`
holds their limits and judges an unseen study.

The distance of a study's vector (the mean over its slabs) is the mean to the nearest three training studies,
after each feature is divided by its standard deviation, in units of its median over the training studies
(Sun, Ming, Zhu & Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022). A training study
is never compared with itself, and all vectors of a space are out of fold, so that training and unseen studies
have equal distances if they are alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.tables import TRAINING, read_table

TABLE, VECTORS = "training.parquet", "training_vectors.npy"
"""Files of ``stack``, with one row per training study in the same order."""
_NEAREST = 3
_LEAST = 5
"""Smallest number of training studies by which an unseen one is judged."""
_SMALLEST = 0.1
"""Smaller values of noise (HU), spacing (mm) and distance count as this one, so that 0 has a logarithm."""
_TAIL, _ONE_SD = 0.005, 0.1587
"""Quantiles: of the limits, and one standard deviation below the median of a normal distribution."""
_TAIL_SD = 2.576
"""Standard deviations from the median of a normal distribution to its quantile ``_TAIL``."""
UNMEASURED = 2.0
"""Novelty of a study one of whose numbers cannot be measured, although it can in all training studies."""


@dataclass(frozen=True)
class _Number:
    """A number of a study, and how it is judged.

    Attributes:
        words: How it is described; ``{}`` is the value.
        form: Format of the value.
        tolerance: By how much a value may be outside the training data: in HU, or a ratio if ``ratio``.
        ratio: The logarithm is judged, because the number is positive and skewed.
        low: Low values are unlike training as well as high ones.
        normal: The limits are at least those of a normal distribution; otherwise a few values are usual.
    """

    words: str
    form: str
    tolerance: float
    ratio: bool = True
    low: bool = True
    normal: bool = True

    def scaled(self, values: Floats) -> Floats:
        """Values on the scale on which limits are computed."""
        return np.log(np.maximum(values, _SMALLEST)) if self.ratio else values

    @property
    def margin(self) -> float:
        """The tolerance on that scale."""
        return float(np.log(self.tolerance)) if self.ratio else self.tolerance


# the tolerance of the gap is above 2, because one slice may be absent
NUMBERS = {
    "brain_hu": _Number("brain tissue at {} HU", ".0f", 3.0, ratio=False),
    "noise_hu": _Number("noise of {} HU", ".1f", 1.15),
    "spacing_mm": _Number("slices every {} mm", ".1f", 1.3, normal=False),
    "largest_gap_mm": _Number("a gap of {} mm between slices", ".1f", 2.2, low=False, normal=False),
    "embedding_distance": _Number("images at a distance of {}", ".2f", 1.1, low=False),
}


@dataclass(frozen=True)
class Space:
    """The training studies in the space of one network.

    Attributes:
        vectors: (study, feature), scaled.
        scale: (feature,) divides a vector.
        unit: Median distance of a training study to the others.
    """

    vectors: Floats
    scale: Floats
    unit: float

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "Space":
        """Divide features by their standard deviation, to which its median is added for constant ones."""
        spread = vectors.std(axis=0, dtype=np.float64) if len(vectors) else np.ones(vectors.shape[1])
        scale = np.sqrt(spread**2 + np.median(spread) ** 2)
        scale = np.where(scale > 0, scale, 1.0)
        bare = cls(vectors / scale, scale, 1.0)
        between = bare.among_themselves()
        known = between[np.isfinite(between)]
        return cls(bare.vectors, scale, max(float(np.median(known)), 1e-6) if len(known) else 1.0)

    def among_themselves(self) -> Floats:
        """(study,) distances of the training studies to the others; NaN for a single study."""
        if len(self.vectors) < 2:
            return np.full(len(self.vectors), np.nan)
        square = (self.vectors**2).sum(axis=1)
        away = np.sqrt(np.maximum(square[:, None] + square - 2 * self.vectors @ self.vectors.T, 0))
        np.fill_diagonal(away, np.inf)
        nearest = np.sort(away, axis=1)[:, : min(_NEAREST, len(away) - 1)]
        distances: Floats = nearest.mean(axis=1) / self.unit
        return distances

    def distance(self, vector: NDArray[np.floating[Any]]) -> float:
        """Distance of an unseen study; ``vector`` is (feature,)."""
        away = np.sqrt(((self.vectors - vector / self.scale) ** 2).sum(axis=1))
        return float(np.sort(away)[:_NEAREST].mean() / self.unit) if len(away) else float("nan")


class Training:
    """The training studies of a run, by which unseen studies are judged.

    Args:
        table: TRAINING.
        vectors: (study, feature) mean vectors, in the order of the table.
    """

    def __init__(self, table: pl.DataFrame, vectors: NDArray[np.float32]) -> None:
        self.table, self._vectors = table, vectors

    @classmethod
    def load(cls, stack: Artifact) -> "Training":
        """Read the training studies from the artefact of ``stack``.

        Raises:
            IntegrityError: The files are missing or damaged.
        """
        return cls(read_table(stack.file(TABLE), TRAINING), np.load(stack.file(VECTORS)))

    @cached_property
    def _spaces(self) -> dict[int, Space]:
        nets = self.table["net"].to_numpy()
        return {int(net): Space.of(self._vectors[nets == net]) for net in np.unique(nets)}

    @cached_property
    def _known(self) -> dict[str, Floats]:
        """Sorted measured values of each number."""
        return {name: self.table[name].drop_nulls().drop_nans().sort().to_numpy() for name in NUMBERS}

    def distance(self, vectors: Mapping[int, NDArray[np.floating[Any]]]) -> float | None:
        """Mean over the networks of the distance of an unseen study.

        Args:
            vectors: By network, (feature,) mean vector of the study.
        """
        found = [self._spaces[net].distance(vector) for net, vector in vectors.items() if net in self._spaces]
        return float(np.mean(found)) if found and np.isfinite(found).all() else None

    def judge(self, numbers: Mapping[str, float | None]) -> dict[str, Any]:
        """Compare a study with the training studies.

        The novelty of a number is its distance from the training median, divided by the distance of the limit
        on that side. The limit is the 0.5th (99.5th) percentile of training plus a tolerance. For brain
        tissue, noise and distance it is at least that of a normal distribution, enlarged for small training
        sets like the quantiles of Student's t. The novelty of the study is the largest of its numbers; above
        1 the study is unlike training.

        Args:
            numbers: Values of :data:`NUMBERS`; None where a value cannot be measured.

        Returns:
            The columns of STUDY_CHECKS, but for ``study`` and spreads.
        """
        novelty = {name: self._novelty(name, value) for name, value in numbers.items()}
        reasons = [self._reason(name, numbers[name]) for name in novelty if novelty[name] > 1]
        return {
            "unlike_training": bool(reasons),
            "unlike_reason": "; ".join(reasons),
            "novelty": max(novelty.values(), default=0.0),
            **numbers,
            **{f"{name}_percentile": self._percentile(name, value) for name, value in numbers.items()},
        }

    def _novelty(self, name: str, value: float | None) -> float:
        known, number = self._known[name], NUMBERS[name]
        if len(known) < _LEAST:
            return 0.0
        if value is None:
            return UNMEASURED if len(known) == len(self.table) else 0.0
        low, middle, high = _limits(number.scaled(known), number.margin, normal=number.normal)
        at = float(number.scaled(np.array(value)))
        if at >= middle:
            return (at - middle) / (high - middle)
        return (middle - at) / (middle - low) if number.low else 0.0

    def _percentile(self, name: str, value: float | None) -> float | None:
        """Share of training studies below the value, equal ones counting half, in percent."""
        known = self._known[name]
        if value is None or not len(known):
            return None
        below, upto = np.searchsorted(known, value, "left"), np.searchsorted(known, value, "right")
        return float(50.0 * (below + upto) / len(known))

    def _reason(self, name: str, value: float | None) -> str:
        number = NUMBERS[name]
        low, high = (f"{np.quantile(self._known[name], q):{number.form}}" for q in (_TAIL, 1 - _TAIL))
        if value is None:
            return number.words.format("unknown") + f" (training {low} to {high})"
        return number.words.format(f"{value:{number.form}}") + f" (training {low} to {high})"


def _limits(values: Floats, margin: float, *, normal: bool) -> tuple[float, float, float]:
    """Lower limit, median and upper limit of the values of training."""
    tail, below, middle, above, top = np.quantile(values, [_TAIL, _ONE_SD, 0.5, 1 - _ONE_SD, 1 - _TAIL])
    if normal:
        n = len(values)
        wide = _TAIL_SD * (1 + 3 / n + 15 / n**2)  # close to Student's t from 5 studies on
        tail = min(tail, middle - wide * (middle - below))
        top = max(top, middle + wide * (above - middle))
    return float(tail - margin), float(middle), float(top + margin)
