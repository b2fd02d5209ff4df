"""Gaussian smoothing along z."""

import numpy as np
import pytest

from rsna_seq.scoring.smoothing import smooth_along_z


def test_smoothing_keeps_constants_and_weights_by_distance() -> None:
    z = np.array([0.0, 5.0, 10.0, 40.0])
    assert smooth_along_z(np.full((4, 2), 0.3), z, 5.0) == pytest.approx(0.3)
    peak = smooth_along_z(np.array([[1.0], [0], [0], [0]]), z, 5.0)[:, 0]
    assert peak[0] > peak[1] > peak[2] > peak[3]
    assert peak[3] < 1e-10
    assert smooth_along_z(np.array([[0.7]]), np.array([3.0]), 5.0) == pytest.approx(0.7)
    flip = smooth_along_z(np.array([[0.0], [0], [0], [1]]), -z[::-1], 5.0)[::-1, 0]
    assert flip == pytest.approx(peak)
