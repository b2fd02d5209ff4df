"""The shared bootstrap over patients: means, paired differences and the ROC area."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rsna_seq.scoring.bootstrap import Bootstrap


def test_a_mask_selects_rows_and_an_empty_one_is_refused() -> None:
    draws = Bootstrap(np.array(list("aabbc")), 200)
    some = np.array([True, False, False, False, False])
    assert draws.mean(np.array([5.0, 1, 1, 1, 1]), some) == (5, 5, 5)
    with pytest.raises(ValueError, match="at least one"):
        draws.mean(np.ones(5), np.zeros(5, dtype=bool))
    with pytest.raises(ValueError, match="at least one"):
        Bootstrap(np.array([]))


@given(st.integers(0, 5000), st.integers(2, 40), st.integers(1, 12))
@settings(max_examples=50)
def test_the_area_equals_that_of_scikit_learn_with_ties(seed: int, n: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    labels, scores = random.integers(0, 2, n), random.integers(0, levels, n) / levels
    patients = np.array([f"p{i}" for i in random.integers(0, 5, n)])
    area = Bootstrap(patients, 20).auc(labels, scores, patients)
    if 0 < labels.sum() < n:
        assert area is not None
        assert area.value == pytest.approx(roc_auc_score(labels, scores))
        assert 0 <= area.low <= area.high <= 1
    else:
        assert area is None


def test_the_area_of_a_bootstrap_sample_weights_each_patient_by_its_count() -> None:
    random = np.random.default_rng(1)
    labels, scores = random.integers(0, 2, 60), random.random(60)
    patients = np.arange(60) // 4
    drawn = np.random.default_rng(3).multinomial(15, np.full(15, 1 / 15), size=50)
    areas = [roc_auc_score(labels, scores, sample_weight=draw[patients]) for draw in drawn]
    area = Bootstrap(patients, 50, seed=3).auc(labels, scores, patients)
    assert area is not None
    assert (area.low, area.high) == pytest.approx(tuple(np.percentile(areas, [2.5, 97.5])))
