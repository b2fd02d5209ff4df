"""Scanners unlike the standard ones: the ranges that are promised, and HU that are changed as promised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.config import SynthConfig
from rsna_seq.phantom import Scan, draw_patient, draw_scan, render_study, vary
from rsna_seq.phantom.prevalence import StudyPlan
from rsna_seq.phantom.scanner import MAX_SLICES, MIN_SLICES
from rsna_seq.phantom.studies import StudyTask, make_study
from rsna_seq.phantom.variation import CHANGES, Scanners, calibrated
from rsna_seq.tools.synth import run


def _scans(scanners: Scanners, count: int) -> list[tuple[Scan, Scan]]:
    """Standard acquisitions, and the same ones on other scanners."""
    pairs = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scan = draw_scan(rng, draw_patient(rng))
        pairs.append((scan, vary(rng, scan, scanners)))
    return pairs


def test_standard_scanners_are_unchanged_and_use_no_random_numbers() -> None:
    rng = np.random.default_rng(1)
    scan = draw_scan(rng, draw_patient(rng))
    before = rng.bit_generator.state
    assert vary(rng, scan, "standard") is scan
    assert rng.bit_generator.state == before
    assert (scan.offset_hu, scan.gain, scan.changes) == (0.0, 1.0, ())


def test_one_seed_gives_the_same_haemorrhages_on_other_scanners() -> None:
    kinds = ("intraparenchymal",)
    for study in range(3):
        made = []
        for scanners in ("standard", "unseen", "varied"):
            cfg = SynthConfig(studies=1, test_studies=0, matrix=64, scanners=scanners)
            made.append(
                make_study(StudyTask("train", 3, study, StudyPlan(study, kinds), cfg, cut=False)).study
            )
        standard, *others = made
        for other in others:
            assert [(b.centre, b.radii, b.hu) for b in other.bleeds] == [
                (b.centre, b.radii, b.hu) for b in standard.bleeds
            ]
        assert made[1].scan.changes


def test_each_unseen_scanner_is_far_from_the_standard_ones() -> None:
    pairs = _scans("unseen", 150)
    assert {name for _, scan in pairs for name in scan.changes} == set(CHANGES)
    assert {len(scan.changes) for _, scan in pairs} == {1, 2, 3, 4, 5}
    for standard, scan in pairs:
        assert scan.changes
        assert 6 <= abs(scan.offset_hu) <= 12 if "offset" in scan.changes else scan.offset_hu == 0
        assert 0.04 <= abs(scan.gain - 1) <= 0.08 if "gain" in scan.changes else scan.gain == 1
        assert (min(scan.sharpen, 0.5) == 0.5 and scan.kernel <= 0.32) or "sharp" not in scan.changes
        assert (set(scan.thickness) == {0.6}) == ("thin" in scan.changes)
        if scan.changes == ("thin",):
            expected = standard.noise * np.sqrt(np.mean(standard.thickness) / 0.6)
            assert scan.noise == pytest.approx(min(expected, 25.0))
        assert scan.noise <= 25
    assert {np.sign(scan.offset_hu) for _, scan in pairs} == {-1, 0, 1}


def test_sampled_slices_lie_on_a_grid_of_0_6_mm_with_gaps_of_up_to_16_mm() -> None:
    sparse = [scan for _, scan in _scans("unseen", 100) if "sparse" in scan.changes]
    smallest, largest = [], []
    for scan in sparse:
        gaps = np.diff(scan.offsets)
        np.testing.assert_allclose(gaps / 0.6, np.rint(gaps / 0.6), atol=1e-3)
        assert MIN_SLICES <= len(scan.offsets) == len(scan.thickness) <= MAX_SLICES
        smallest.append(gaps.min())
        largest.append(gaps.max())
    assert min(smallest) == pytest.approx(0.6)
    assert 12 < max(largest) <= 16


def test_varied_scanners_cover_the_range_and_include_standard_ones() -> None:
    pairs = _scans("varied", 300)
    other = [scan for standard, scan in pairs if scan is not standard]
    assert 0.65 < len(other) / len(pairs) < 0.85
    assert all(12 <= len(s.offsets) == len(s.thickness) <= MAX_SLICES for s in other)
    ranges = {
        "noise": (3.0, 24.0, 2.0, 25.0),
        "offset_hu": (-10.0, 10.0, -12.0, 12.0),
        "gain": (0.93, 1.07, 0.92, 1.08),
        "kernel": (0.25, 1.0, 0.2, 1.1),
        "sharpen": (0.1, 1.5, 0.0, 2.0),
    }
    for name, (low, high, least, most) in ranges.items():
        values = [getattr(scan, name) for scan in other]
        assert least <= min(values) < low, name
        assert high < max(values) <= most, name
    thickness = [np.mean(scan.thickness) for scan in other]
    assert 0.599 < min(thickness) < 0.7
    assert 5 < max(thickness) < 6.001


@settings(max_examples=50, deadline=None)
@given(offset=st.floats(-12, 12), gain=st.floats(0.92, 1.08))
def test_calibration_is_linear_in_tissue_keeps_air_and_the_order_of_hu(offset: float, gain: float) -> None:
    rng = np.random.default_rng(0)
    scan = replace(draw_scan(rng, draw_patient(rng)), offset_hu=offset, gain=gain)
    hu = np.arange(-1024, 3000, dtype=np.float32)[None]
    seen = calibrated(hu, scan)[0]
    assert (np.diff(seen) > 0).all()
    np.testing.assert_allclose(seen[hu[0] <= -1000], hu[0][hu[0] <= -1000])
    tissue = hu[0] >= -200
    np.testing.assert_allclose(seen[tissue], hu[0][tissue] * gain + offset, atol=1e-3)


def test_the_offset_is_seen_in_the_brain_and_not_in_air() -> None:
    rng = np.random.default_rng(2)
    patient = draw_patient(rng)
    scan = draw_scan(rng, patient)
    scan = replace(scan, offsets=scan.offsets[10:14], thickness=scan.thickness[10:14], motion=(0, 0, 0.0))
    plain = render_study(patient, scan, (), 64, np.random.default_rng(1)).hu.astype(int)
    shifted = render_study(patient, replace(scan, offset_hu=9.0), (), 64, np.random.default_rng(1)).hu
    change = shifted - plain
    assert np.median(change[(plain > 20) & (plain < 45)]) == 9
    assert np.abs(change[plain < -990]).max() <= 1


def test_the_scanners_of_a_set_are_written_beside_its_labels(tmp_path: Path) -> None:
    cfg = SynthConfig(studies=1, test_studies=1, matrix=64, damage=False, scanners="unseen")
    run(cfg, tmp_path, seed=4, workers=1)
    table = pd.read_csv(tmp_path / "phantom_scanners.csv")
    assert len(table) == table.study.nunique() == 2
    assert all(set(words.split()) <= set(CHANGES) for words in table.changes)
    assert (table.loc[table.changes.str.contains("offset"), "offset_hu"].abs() >= 6).all()
    assert table.slices.sum() == len(list(tmp_path.rglob("*.dcm")))
