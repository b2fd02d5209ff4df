"""The official metric against scikit-learn, and properties of intervals and calibration error."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from rsna_seq.labels import CLASS_WEIGHTS, CLASSES, N_CLASSES
from rsna_seq.scoring.bootstrap import Bootstrap
from rsna_seq.scoring.metric import (
    calibration_error,
    class_log_loss,
    log_loss,
    slice_losses,
)


def _slices(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 2, (n, N_CLASSES)), random.uniform(0.001, 0.999, (n, N_CLASSES))


@given(st.integers(0, 10_000), st.integers(2, 60))
@settings(max_examples=40)
def test_the_metric_is_scikit_learns_weighted_log_loss(seed: int, n: int) -> None:
    labels, p = _slices(seed, n)
    weights = np.tile([1, 1, 1, 1, 1, 2], (n, 1))
    theirs = metrics.log_loss(labels.ravel(), p.ravel(), sample_weight=weights.ravel(), labels=[0, 1])
    assert log_loss(labels, p) == pytest.approx(theirs, rel=1e-12)


def test_any_counts_twice_and_the_weights_sum_to_one() -> None:
    assert CLASS_WEIGHTS.sum() == pytest.approx(1)
    assert CLASS_WEIGHTS[CLASSES.index("any")] == pytest.approx(2 * CLASS_WEIGHTS[0])


def test_the_metric_is_the_mean_of_its_slices_and_the_weighted_mean_of_its_classes() -> None:
    labels, p = _slices(1)
    assert slice_losses(labels, p).mean() == pytest.approx(log_loss(labels, p))
    by_class = [metrics.log_loss(labels[:, c], p[:, c]) for c in range(N_CLASSES)]
    assert CLASS_WEIGHTS @ by_class == pytest.approx(log_loss(labels, p))


def test_certain_and_wrong_is_finite() -> None:
    labels = np.eye(N_CLASSES)
    assert log_loss(labels, labels) == pytest.approx(0, abs=1e-12)
    assert 30 < log_loss(labels, 1 - labels) < 40


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="slice, class"):
        class_log_loss(np.zeros((3, N_CLASSES)), np.zeros((4, N_CLASSES)))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        patients = np.repeat(np.arange(60), random.integers(2, 6, 60))
        effect = random.normal(0, 1, 60)  # slices of one patient resemble each other
        losses = effect[patients] + random.normal(0, 0.3, len(patients))
        interval = Bootstrap(patients, 400, seed=trial).mean(losses)
        hits += interval.low <= 0 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_slices_of_one_patient_are_not_treated_as_independent() -> None:
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 30)
    losses = random.normal(0, 1, 40)[patients]
    together = Bootstrap(patients).mean(losses)
    alone = Bootstrap(np.arange(len(losses))).mean(losses)
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_a_model_against_itself_differs_by_zero() -> None:
    labels, p = _slices(3)
    losses = slice_losses(labels, p)
    assert Bootstrap(np.arange(len(losses)) // 10).mean(losses - losses) == (0, 0, 0)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    random = np.random.default_rng(0)
    patients = np.arange(400) // 10
    one = random.normal(1, 1, 40)[patients]
    other = one - 0.1 + random.normal(0, 0.05, 400)
    gap = Bootstrap(patients).mean(other - one)
    single = Bootstrap(patients).mean(one)
    assert gap.high < 0
    assert gap.high - gap.low < 0.2 * (single.high - single.low)


def test_the_same_seed_gives_the_same_interval_whatever_patients_are_called() -> None:
    losses, patients = np.random.default_rng(1).random(100), np.arange(100) // 5
    first = Bootstrap(patients, seed=7).mean(losses)
    assert Bootstrap(np.array([f"p{i:03d}" for i in patients]), seed=7).mean(losses) == first
    assert Bootstrap(patients, seed=8).mean(losses) != first


def test_one_patient_has_an_interval_without_width_and_none_has_no_interval() -> None:
    assert Bootstrap(np.array(["a", "a"])).mean(np.array([1.0, 2.0])) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="at least one"):
        Bootstrap(np.zeros(0))


def test_calibrated_probabilities_have_a_small_error_and_shifted_ones_their_shift() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(0.2, 0.6, 50_000)
    labels = (random.random(50_000) < p).astype(int)
    assert calibration_error(labels, p) < 0.01
    assert calibration_error(labels, p + 0.2) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 14])
def test_calibration_error_of_fewer_slices_than_bins_is_the_mean_gap(n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibration_error(np.zeros(n), np.full(n, 0.25)) == pytest.approx(0.25)
