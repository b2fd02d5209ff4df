"""The plan of a set: realistic prevalences, quotas that hold in small sets, patients with several studies."""

import numpy as np
import pytest

from rsna_seq.phantom import KINDS
from rsna_seq.phantom.prevalence import POSITIVE_SHARE, plan_studies


@pytest.mark.parametrize("studies", [5, 8, 40, 56, 90])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_quota(studies: int, seed: int) -> None:
    plans = plan_studies(np.random.default_rng(seed), studies, 0.08)
    assert len(plans) == studies
    for kind in KINDS:
        assert sum(kind in p.kinds for p in plans) >= 0.08 * studies


def test_without_a_quota_the_prevalences_are_realistic() -> None:
    plans = plan_studies(np.random.default_rng(0), 2000, 0.0)
    assert np.mean([bool(p.kinds) for p in plans]) == pytest.approx(POSITIVE_SHARE, abs=0.01)
    shares = {kind: np.mean([kind in p.kinds for p in plans]) for kind in KINDS}
    assert min(shares, key=shares.__getitem__) == "epidural"
    assert 0.005 < shares["epidural"] < 0.03
    assert all(0.1 < shares[kind] < 0.25 for kind in KINDS[1:])


def test_some_patients_have_several_studies() -> None:
    patients = [p.patient for p in plan_studies(np.random.default_rng(1), 60, 0.0)]
    assert len(set(patients)) < 60
    assert set(patients) == set(range(max(patients) + 1))


def test_a_set_of_no_study_and_of_one() -> None:
    assert plan_studies(np.random.default_rng(0), 0, 0.08) == ()
    assert len(plan_studies(np.random.default_rng(0), 1, 0.0)) == 1
