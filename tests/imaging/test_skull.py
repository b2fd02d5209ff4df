"""The inside of the skull: closed, open at the base, turned away, and absent."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rsna_seq.imaging.skull import inside_skull
from rsna_seq.phantom import draw_patient, draw_scan, render_study

SIDE = 128


def _head(*, gap: int = 0) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """A round head with a skull, a gap of so many pixels in it, and the true inside."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    r = np.hypot(x, y)
    hu = np.full((SIDE, SIDE), -1000, np.int16)
    hu[r < 56] = 40
    hu[(r > 46) & (r < 51)] = 1200
    if gap:
        hu[(np.abs(y) < gap / 2) & (x > 0) & (r > 40) & (r < 56)] = 40
    return hu, r <= 46


@pytest.mark.parametrize("gap", [0, 2])
def test_the_inside_is_what_bone_encloses_even_through_a_small_gap(gap: int) -> None:
    hu, truth = _head(gap=gap)
    found = inside_skull(hu)
    assert (found & ~truth).sum() < 0.03 * truth.sum()
    assert (found & truth).sum() > 0.97 * truth.sum()


def test_an_open_skull_gives_the_head_without_its_outer_layer() -> None:
    hu, truth = _head(gap=30)
    found = inside_skull(hu)
    assert (found & truth).sum() > 0.8 * truth.sum()
    assert not found[hu < -500].any()
    assert not found[hu > 500].any()


def test_air_has_no_inside() -> None:
    assert not inside_skull(np.full((SIDE, SIDE), -1000, np.int16)).any()


def test_the_inside_of_a_phantom_is_brain_and_fluid() -> None:
    rng = np.random.default_rng(5)
    patient = draw_patient(rng)
    study = render_study(patient, draw_scan(rng, patient), (), SIDE, rng)
    middle = study.hu[np.argsort(study.scan.offsets)[len(study.hu) // 2]]
    found = inside_skull(middle)
    assert 0.25 < found.mean() < 0.75
    assert ((middle[found] > -50) & (middle[found] < 130)).mean() > 0.98
