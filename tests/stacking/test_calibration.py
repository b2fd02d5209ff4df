"""Platt scaling: distorted logits are corrected, and classes without a fit stay unchanged."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.labels import CLASSES
from rsna_seq.scoring.metric import log_loss
from rsna_seq.stacking.calibration import apply_platt, fit_platt


def _answers(seed: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated logits, and labels sampled from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1.5, 2.0, (rows, 6))
    return logits, (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def _loss(labels: np.ndarray, logits: np.ndarray) -> float:
    return log_loss(labels, 1 / (1 + np.exp(-logits)))


@settings(max_examples=15)
@given(st.floats(0.3, 4.0), st.floats(-2.0, 2.0), st.integers(0, 100))
def test_scaled_and_shifted_logits_are_corrected(slope: float, shift: float, seed: int) -> None:
    logits, labels = _answers(seed)
    lines = fit_platt(slope * logits + shift, labels)
    assert list(lines) == list(CLASSES)
    for found in lines.values():
        np.testing.assert_allclose(found, (1 / slope, -shift / slope), atol=0.25 * max(1.0, 1 / slope))
    corrected = apply_platt(slope * logits + shift, lines)
    assert _loss(labels, corrected) <= _loss(labels, slope * logits + shift) + 1e-9
    np.testing.assert_array_equal(np.argsort(corrected, axis=0), np.argsort(logits, axis=0))


def test_classes_with_one_label_or_a_negative_slope_are_not_fitted() -> None:
    logits, labels = _answers(1)
    labels[:, 0] = 0
    labels[:, 1] = (logits[:, 1] < 0).astype(np.int8)  # the slope would be negative
    lines = fit_platt(logits, labels)
    assert set(CLASSES) - set(lines) == {CLASSES[0], CLASSES[1]}
    np.testing.assert_array_equal(apply_platt(logits, lines)[:, :2], logits[:, :2])
