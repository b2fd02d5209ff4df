"""Temperature scaling: the factor is recovered, the loss falls, and each fold is scaled by the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.arrays import sigmoid
from rsna_seq.scoring.metric import log_loss
from rsna_seq.stacking.calibration import cross_temperatures, fit_temperature


def _answers(seed: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated logits, and labels sampled from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1.5, 2.0, (rows, 6))
    return logits, (random.random(logits.shape) < sigmoid(logits)).astype(np.int8)


@settings(max_examples=20)
@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_a_temperature_is_recovered_and_lowers_the_official_metric(factor: float, seed: int) -> None:
    logits, labels = _answers(seed)
    found = fit_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.15)
    best = log_loss(labels, sigmoid(factor * logits / found))
    for other in (1.0, 0.98, 1.02):
        assert best <= log_loss(labels, sigmoid(factor * logits / (found * other))) + 1e-12
    assert best <= log_loss(labels, sigmoid(factor * logits)) + 1e-12


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_any_few_rows_have_a_finite_temperature(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(0, 30, (rows, 6)), random.integers(0, 2, (rows, 6))
    assert 0.049 < fit_temperature(logits, labels) < 20.1


def test_separable_and_constant_logits_end_at_the_limits() -> None:
    labels = np.tile([[0], [1]], (5, 6))
    assert fit_temperature(2.0 * labels - 1, labels) == pytest.approx(1 / 20)
    assert fit_temperature(1 - 2.0 * labels, labels) == pytest.approx(20)
    assert fit_temperature(np.zeros((10, 6)), labels) == pytest.approx(1, rel=20)


def test_a_fold_is_scaled_by_the_others_and_unseen_rows_by_all() -> None:
    logits, labels = _answers(3)
    own = np.arange(len(logits)) % 4 - 1  # held out, 0, 1, 2
    scaled, of_all = cross_temperatures(logits, labels, own, [0, 1, 2])
    flipped = labels.copy()
    flipped[own == -1] = 1 - labels[own == -1]  # labels of held-out patients change nothing
    np.testing.assert_array_equal(scaled, cross_temperatures(logits, flipped, own, [0, 1, 2])[0])
    np.testing.assert_array_equal(scaled[own == -1], logits[own == -1] / of_all)
    flipped = labels.copy()
    flipped[own == 1] = 1 - labels[own == 1]  # nor do those of its own fold
    again, changed = cross_temperatures(logits, flipped, own, [0, 1, 2])
    np.testing.assert_array_equal(again[own == 1], scaled[own == 1])
    assert not np.allclose(again[own == 0], scaled[own == 0])
    assert changed != of_all
