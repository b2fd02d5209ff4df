"""Thresholds over studies: how they are chosen, and that no study is scored by a threshold that it chose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.labels import CLASSES, N_CLASSES
from rsna_seq.scoring.operating_points import (
    Figures,
    Rate,
    choose,
    figures,
    operating_points,
    predictive_values,
)

_studies = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=12, max_size=60)


def arrays(studies: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Labels with five of either kind, probabilities with ties, and every threshold that differs."""
    truth = np.array([has for has, _ in studies], dtype=np.int8)
    truth[:5], truth[5:10] = 1, 0
    p = np.array([(number + 1) / 22 for _, number in studies])
    return truth, p, [0.0, *sorted(set(p.tolist()))]


@settings(max_examples=50)
@given(_studies)
def test_the_threshold_is_the_highest_with_a_sensitivity_of_95_percent(
    studies: list[tuple[bool, int]],
) -> None:
    truth, p, cuts = arrays(studies)
    found = choose(truth, p, "sensitivity95")
    assert found is not None
    highest = max(cut for cut in cuts if (p[truth == 1] > cut).mean() >= 0.95)
    assert ((p > found) == (p > highest)).all()


@settings(max_examples=50)
@given(_studies)
def test_the_threshold_of_youden_has_the_largest_sum(studies: list[tuple[bool, int]]) -> None:
    truth, p, cuts = arrays(studies)
    found = choose(truth, p, "youden")
    assert found is not None
    sums = {cut: (p[truth == 1] > cut).mean() + (p[truth == 0] <= cut).mean() for cut in (*cuts, found)}
    assert sums[found] == pytest.approx(max(sums.values()))


def test_a_rare_class_has_no_threshold() -> None:
    p = np.linspace(0, 1, 50)
    truth = np.zeros(50, dtype=np.int8)
    truth[-4:] = 1
    assert choose(truth, p, "youden") is None
    assert choose(1 - truth, p, "sensitivity95") is None
    truth[-5:] = 1
    assert choose(truth, p, "youden") == pytest.approx((p[-5] + p[-6]) / 2)


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """120 studies in three folds and 60 that are held out."""
    random = np.random.default_rng(seed)
    truth = (random.random((180, N_CLASSES)) < 0.4).astype(np.int8)
    p = np.clip(random.normal(0.3 + 0.4 * truth, 0.2), 0, 1)
    return truth, p, np.repeat([0, 1, 2, -1], [40, 40, 40, 60])


def test_studies_without_a_label_of_a_class_neither_choose_nor_count() -> None:
    truth = np.array([1.0] * 6 + [0.0] * 6 + [np.nan] * 9)
    p = np.concatenate([np.linspace(0.4, 0.9, 6), np.linspace(0.1, 0.6, 6), np.full(9, 0.99)])
    for criterion in ("youden", "sensitivity95"):
        assert choose(truth, p, criterion) == choose(truth[:12], p[:12], criterion)
    assert choose(truth[5:], p[5:], "youden") is None
    assert figures(truth, p > 0.5) == figures(truth[:12], p[:12] > 0.5)


def test_each_fold_is_scored_by_the_threshold_of_the_others() -> None:
    truth, p, folds = drawn()
    for criterion, points in operating_points(truth, p, folds).criteria.items():
        assert list(points) == list(CLASSES)
        for c, point in enumerate(points.values()):
            assert point.threshold == choose(truth[folds >= 0, c], p[folds >= 0, c], criterion)
            above = np.zeros(len(p), dtype=bool)
            for fold in range(3):
                others = (folds >= 0) & (folds != fold)
                above |= (folds == fold) & (p[:, c] > choose(truth[others, c], p[others, c], criterion))
            own = folds >= 0
            assert point.out_of_fold == figures(truth[own, c], above[own])
            assert point.held_out == figures(truth[~own, c], p[~own, c] > point.threshold)
            assert point.scope == "held_out"


def test_held_out_studies_choose_nothing() -> None:
    truth, p, folds = drawn()
    known = operating_points(truth, p, folds).criteria
    truth[folds < 0] = 1 - truth[folds < 0]
    for criterion, points in operating_points(truth, p, folds).criteria.items():
        for name, point in points.items():
            assert point.threshold == known[criterion][name].threshold
            assert point.out_of_fold == known[criterion][name].out_of_fold
            assert point.held_out != known[criterion][name].held_out


def test_few_held_out_studies_are_not_the_figures_that_are_shown() -> None:
    truth, p, folds = drawn()
    few = np.flatnonzero(folds < 0)[30:]
    truth, p, folds = np.delete(truth, few, 0), np.delete(p, few, 0), np.delete(folds, few)
    point = operating_points(truth, p, folds).criteria["youden"]["any"]
    assert point.held_out is not None
    assert point.scope == "out_of_fold"
    assert point.figures == point.out_of_fold
    bare = operating_points(truth[folds >= 0], p[folds >= 0], folds[folds >= 0]).criteria["youden"]["any"]
    assert bare.held_out is None


def test_a_rate_has_the_interval_of_wilson() -> None:
    all_right = Rate.of_counts(42, 42)
    assert (all_right.value, all_right.high) == (1.0, 1.0)
    assert all_right.low == pytest.approx(0.9162, abs=1e-4)
    part = Rate.of_counts(15, 20)
    assert (part.low, part.high) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert Rate.of_counts(0, 3).low == 0.0


def test_predictive_values_are_shares_of_counted_studies() -> None:
    found = Figures(sensitivity=Rate.of_counts(18, 20), specificity=Rate.of_counts(60, 80))
    positive, negative = predictive_values(found, 0.1)
    # of 1,000 studies 100 have it: 90 are found, 225 of the others are called as well
    assert positive == pytest.approx(90 / (90 + 225))
    assert negative == pytest.approx(675 / (675 + 10))
    nothing = Figures(sensitivity=Rate.of_counts(0, 20), specificity=Rate.of_counts(80, 80))
    assert predictive_values(nothing, 0.1) == (None, pytest.approx(0.9))
