"""The brain mode of phantoms: follows an offset; noise, clots and CSF hardly change it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rsna_seq.imaging.brain_mode import brain_mode, nominal_shift, shift_hu
from rsna_seq.phantom import draw_bleed, draw_patient, draw_scan, render_study

Pixels = NDArray[np.int16]


def _phantom(seed: int, kind: str | None = None, size: int = 128) -> Pixels:
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    scan = draw_scan(rng, patient)
    bleeds = draw_bleed(np.random.default_rng(seed), kind, 3.5) if kind else ()
    return render_study(patient, scan, bleeds, size, np.random.default_rng(seed)).hu


@pytest.fixture(scope="module")
def phantoms() -> list[Pixels]:
    return [_phantom(seed) for seed in (0, 5)]


def _mode(hu: Pixels) -> float:
    mode = brain_mode(hu)
    assert mode is not None
    return mode


@settings(max_examples=25, deadline=None)
@given(offset=st.integers(-14, 14), which=st.integers(0, 1))
def test_an_offset_moves_the_mode_by_as_much(phantoms: list[Pixels], offset: int, which: int) -> None:
    hu = phantoms[which]
    shifted = hu.copy()
    shift_hu(shifted, offset)
    assert _mode(shifted) - _mode(hu) == pytest.approx(offset, abs=0.5)


def test_a_gain_moves_the_mode_in_proportion(phantoms: list[Pixels]) -> None:
    for hu in phantoms:
        for gain in (0.92, 1.08):
            scaled = np.rint(hu * gain).astype(np.int16)
            assert _mode(scaled) == pytest.approx(gain * _mode(hu), abs=1)


@pytest.mark.parametrize("grain", [0.0, 0.6], ids=["white", "correlated"])
def test_noise_hardly_moves_the_mode(phantoms: list[Pixels], grain: float) -> None:
    """Grain in pixels of 2 mm: 1.2 mm is coarser than that of a soft kernel (0.85 mm)."""
    for hu in phantoms:
        noise = np.random.default_rng(0).standard_normal(hu.shape).astype(np.float32)
        if grain:
            noise = np.stack([cv2.GaussianBlur(n, (0, 0), grain) for n in noise])
        noisy = np.rint(hu + 20 * noise / noise.std()).astype(np.int16)
        assert _mode(noisy) == pytest.approx(_mode(hu), abs=1.5)


@pytest.mark.parametrize("kind", ["intraparenchymal", "subdural", "intraventricular"])
def test_a_large_bleed_hardly_moves_the_mode(phantoms: list[Pixels], kind: str) -> None:
    assert _mode(_phantom(5, kind)) == pytest.approx(_mode(phantoms[1]), abs=1)


def test_half_a_brain_of_clot_or_csf_is_not_taken_for_brain(phantoms: list[Pixels]) -> None:
    for hu in phantoms:
        for value, part in ((72, 0.5), (8, 0.4)):
            changed, wide = hu.copy(), int(part * hu.shape[2])
            left = changed[:, :, :wide]
            left[(left > 0) & (left < 60)] = value
            assert _mode(changed) == pytest.approx(_mode(hu), abs=1.5)


@pytest.mark.parametrize("value", [-1024, -1000, -100, 90, 300, 1200])
def test_without_brain_there_is_no_mode(value: int) -> None:
    assert brain_mode(np.full((30, 128, 128), value, dtype=np.int16)) is None


def test_a_little_soft_tissue_between_bone_is_no_brain() -> None:
    hu = np.full((10, 64, 64), 900, dtype=np.int16)
    hu[:, 30:36, 30:36] = 35
    assert brain_mode(hu) is None
    assert brain_mode(np.empty((0, 64, 64), dtype=np.int16)) is None


def test_the_mode_depends_on_the_study_alone_and_hardly_on_the_size_of_the_cache(
    phantoms: list[Pixels],
) -> None:
    before = [hu.copy() for hu in phantoms]
    modes = [_mode(hu) for hu in phantoms]
    assert [_mode(hu) for hu in reversed(phantoms)] == modes[::-1]
    for hu, copy, mode in zip(phantoms, before, modes, strict=True):
        np.testing.assert_array_equal(hu, copy)
        small = np.stack([cv2.resize(s, (96, 96), interpolation=cv2.INTER_AREA) for s in hu])
        assert _mode(small) == pytest.approx(mode, abs=1)


def test_the_shift_is_bounded_whole_and_zero_where_nothing_is_known() -> None:
    assert nominal_shift(43.4, 31.0, 15.0) == -12
    assert nominal_shift(24.4, 31.0, 15.0) == 7
    assert nominal_shift(60.0, 31.0, 15.0) == -15
    assert nominal_shift(6.0, 31.0, 15.0) == 15
    assert nominal_shift(None, 31.0, 15.0) == 0
    assert nominal_shift(43.4, None, 15.0) == 0


@given(st.lists(st.integers(-1024, 32767), min_size=1, max_size=20), st.integers(-30, 30))
def test_a_shift_never_wraps_around(values: list[int], shift: int) -> None:
    hu = np.array(values, dtype=np.int16).reshape(1, 1, -1)
    shift_hu(hu, shift)
    np.testing.assert_array_equal(hu.ravel(), np.minimum(np.array(values) + shift, 32767))
