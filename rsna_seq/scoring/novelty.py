"""How far a study lies from the training data: a few numbers of a study, compared with those of training.

1. :func:`study_numbers`: mode and noise of brain tissue, spacing and largest gap of the slabs.
2. :func:`write_training`: these numbers of the training studies and, in the space of the network that was not
   trained on it, each study's vector (the mean over its slabs) and its distance to the other studies.
3. :class:`Training`, loaded for prediction: limits of each number, and the verdict on an unseen study.

The distance is the mean to the nearest three training studies, after each feature is divided by its standard
deviation, in units of its median over the training studies (Sun, Ming, Zhu & Li, Out-of-Distribution
Detection with Deep Nearest Neighbors, ICML 2022). A training study is never compared with itself, and all
vectors of a space are out of fold, so that training and unseen studies have equal distances if they are
alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.arrays import Floats
from rsna_seq.imaging.brain_mode import brain_mode
from rsna_seq.imaging.noise import brain_noise
from rsna_seq.imaging.volume import Volume
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.tables import LOGITS, TRAINING, from_rows, read_table, write_table

TABLE, VECTORS = "training.parquet", "training_vectors.npy"
"""Files of ``stack``, with one row per training study in the same order."""
_MOST = 1000
"""Largest number of training studies per network that are stored, evenly spread over the sorted names."""
_NEAREST = 3
_LEAST = 5
"""Smallest number of training studies by which an unseen one is judged."""
_SMALLEST = 0.1
"""Smaller values of noise (HU), spacing (mm) and distance count as this one, so that 0 has a logarithm."""
_TAIL, _ONE_SD = 0.005, 0.1587
"""Quantiles: of the limits, and one standard deviation below the median of a normal distribution."""
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
    """

    words: str
    form: str
    tolerance: float
    ratio: bool = True
    low: bool = True

    def scaled(self, values: Floats) -> Floats:
        """Values on the scale on which limits are computed."""
        return np.log(np.maximum(values, _SMALLEST)) if self.ratio else values

    @property
    def margin(self) -> float:
        """The tolerance on that scale."""
        return float(np.log(self.tolerance)) if self.ratio else self.tolerance


NUMBERS = {
    "brain_hu": _Number("brain tissue at {} HU", ".0f", 3.0, ratio=False),
    "noise_hu": _Number("noise of {} HU", ".1f", 1.25),
    "spacing_mm": _Number("slices every {} mm", ".1f", 1.3),
    "largest_gap_mm": _Number(
        "a gap of {} mm between slices", ".1f", 2.2, low=False
    ),  # one slice may be absent
    "embedding_distance": _Number("images at a distance of {}", ".2f", 1.1, low=False),
}


def study_numbers(volume: Volume, hu_shift: int) -> dict[str, float | None]:
    """Measure a study, or one of its passes.

    Args:
        volume: The study as ``cache`` stores it.
        hu_shift: HU that ``cache`` added to it.

    Returns:
        ``brain_hu`` (mode of brain tissue before the shift), ``noise_hu``, ``spacing_mm`` (median) and
        ``largest_gap_mm``; None where a number cannot be measured.
    """
    mode, gaps = brain_mode(volume.hu), np.diff(volume.z_mm)
    return {
        "brain_hu": None if mode is None else mode - hu_shift,
        "noise_hu": None if mode is None else brain_noise(volume.hu, mode),
        "spacing_mm": float(np.median(gaps)) if len(gaps) else None,
        "largest_gap_mm": float(gaps.max()) if len(gaps) else None,
    }


def write_training(pixels: PixelCache, folds: Mapping[int, Artifact], out: Path) -> int:
    """Measure the training studies and write their numbers and vectors.

    Args:
        pixels: Cache of the run.
        folds: Folds of ``embed``, by number; fold k holds the vectors of the studies that network k left out.
        out: Receives ``training.parquet`` and ``training_vectors.npy``.

    Returns:
        Number of studies.
    """
    studies = pixels.slabs.group_by("study").agg(pl.col("fold", "hu_shift").first())
    about = {study: (fold, shift or 0) for study, fold, shift in studies.rows()}
    rows: list[dict[str, object]] = []
    parts = []
    for net, fold in sorted(folds.items()):
        names, vectors = _study_vectors(fold, {study for study, (own, _) in about.items() if own == net})
        distance = _Space.of(vectors).among_themselves()
        for name, away in zip(names, distance, strict=True):
            numbers = study_numbers(pixels.read(name), about[name][1])
            rows.append({"study": name, "net": net, **numbers, "embedding_distance": away})
        parts.append(vectors)
    write_table(from_rows(rows, TRAINING), out / TABLE, TRAINING)
    together = np.concatenate(parts)
    with array_writer(out / VECTORS, np.float32, together.shape[1:], rows=len(together)) as writer:
        writer.append(together)
    return len(rows)


def _study_vectors(fold: Artifact, wanted: set[str]) -> tuple[list[str], NDArray[np.float32]]:
    """Names and (study, feature) mean vectors of the studies of a fold, at most ``_MOST``."""
    vectors = np.load(fold.file("vectors.npy"), mmap_mode="r")
    table = read_table(fold.file("logits.parquet"), LOGITS).with_row_index("at")
    spans = table.group_by("study").agg(pl.col("at").min(), pl.len()).sort("study")
    spans = spans.filter(pl.col("study").is_in(wanted))
    spans = spans[np.unique(np.linspace(0, len(spans) - 1, min(_MOST, len(spans))).round().astype(int))]
    means = [vectors[at : at + n].mean(axis=0, dtype=np.float64) for _, at, n in spans.rows()]
    return spans["study"].to_list(), np.array(means, dtype=np.float32).reshape(len(spans), vectors.shape[1])


@dataclass(frozen=True)
class _Space:
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
    def of(cls, vectors: NDArray[np.float32]) -> "_Space":
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
        return nearest.mean(axis=1) / self.unit

    def distance(self, vector: NDArray[np.floating[Any]]) -> float:
        """Distance of an unseen study; ``vector`` is (feature,)."""
        away = np.sqrt(((self.vectors - vector / self.scale) ** 2).sum(axis=1))
        return float(np.sort(away)[:_NEAREST].mean() / self.unit) if len(away) else float("nan")


class Training:
    """The training studies of a run, by which unseen studies are judged.

    Args:
        stack: Artefact of ``stack``.

    Raises:
        IntegrityError: The files are missing or damaged.
    """

    def __init__(self, stack: Artifact) -> None:
        self.table = read_table(stack.file(TABLE), TRAINING)
        self._vectors = np.load(stack.file(VECTORS))

    @cached_property
    def _spaces(self) -> dict[int, _Space]:
        nets = self.table["net"].to_numpy()
        return {int(net): _Space.of(self._vectors[nets == net]) for net in np.unique(nets)}

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
        on that side. The limit is the wider of the 0.5th (99.5th) percentile and three standard deviations,
        which are enlarged for small training sets like quantiles of Student's t, plus a tolerance. The
        novelty of the study is the largest of its numbers; above 1 the study is unlike training.

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
        low, middle, high = _limits(number.scaled(known), number.margin)
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


def _limits(values: Floats, margin: float) -> tuple[float, float, float]:
    """Lower limit, median and upper limit of the values of training."""
    tail, below, middle, above, top = np.quantile(values, [_TAIL, _ONE_SD, 0.5, 1 - _ONE_SD, 1 - _TAIL])
    n = len(values)
    wide = 3 * (1 + 3 / n + 15 / n**2)  # close to the quantile of Student's t from 5 studies on
    low = min(tail, middle - wide * (middle - below)) - margin
    high = max(top, middle + wide * (above - middle)) + margin
    return float(low), float(middle), float(high)
