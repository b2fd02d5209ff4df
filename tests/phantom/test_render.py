"""A rendered study: correct labels, a head at the position of the header, realistic densities of tissue."""

from dataclasses import replace

import numpy as np
import pytest

from rsna_seq.phantom import KINDS, Patient, Scan, Study, draw_bleed, draw_patient, draw_scan, render_study
from rsna_seq.phantom.scanner import MAX_SLICES, MIN_SLICES, lattice

MATRIX = 128


def _draw(seed: int) -> tuple[Patient, Scan, np.random.Generator]:
    """A patient, and every second slice of a scan, which is quicker."""
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    scan = draw_scan(rng, patient)
    scan = replace(
        scan,
        motion=(0, 0, 0.0),
        offsets=scan.offsets[::2],
        thickness=scan.thickness[::2],
        field_of_view=240.0,
    )
    return patient, scan, rng


def _study(seed: int) -> Study:
    patient, scan, rng = _draw(seed)
    return render_study(patient, scan, (), MATRIX, rng)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bleed_is_seen_in_the_slices_that_are_labelled_and_in_no_others(kind: str) -> None:
    patient, scan, rng = _draw(100 + KINDS.index(kind))
    bleeds = tuple(replace(b, push=0.0, rim=0.0, hu=75.0) for b in draw_bleed(rng, kind, 2.0))
    with_blood = render_study(patient, scan, bleeds, MATRIX, np.random.default_rng(1))
    unseen = tuple(replace(b, hu=140.0) for b in bleeds)
    denser = render_study(patient, scan, unseen, MATRIX, np.random.default_rng(1))
    changed = np.abs(denser.hu.astype(int) - with_blood.hu).max(axis=(1, 2)) > 2
    column = KINDS.index(kind)
    assert with_blood.labels[:, column].any()
    np.testing.assert_array_equal(changed, with_blood.labels[:, column])
    np.testing.assert_array_equal(with_blood.labels[:, 5], with_blood.labels[:, :5].any(axis=1))
    assert with_blood.labels[:, [k for k in range(5) if k != column]].sum() == 0


@pytest.mark.parametrize("matrix", [MATRIX, 400])  # rendered at full and at half resolution
def test_the_masks_are_where_the_density_of_the_blood_shows(matrix: int) -> None:
    patient, scan, rng = _draw(110)
    scan = replace(scan, offsets=scan.offsets[::3], thickness=scan.thickness[::3], kernel=0.0, sharpen=0.0)
    bleeds = tuple(
        replace(b, push=0.0, rim=0.0)
        for b in (*draw_bleed(rng, "epidural", 2.0), *draw_bleed(rng, "intraventricular", 2.0))
    )
    plain, denser = (
        render_study(patient, scan, drawn, matrix, np.random.default_rng(1), masks=True)
        for drawn in (bleeds, tuple(replace(b, hu=b.hu + 100) for b in bleeds))
    )
    assert plain.masks is not None
    assert plain.masks.shape == (len(plain.hu), len(KINDS), matrix, matrix)
    rise = (denser.hu.astype(float) - plain.hu) / 100  # each pixel rises by its share of blood
    share = plain.masks.max(axis=1) / 255
    assert np.abs(rise - share)[share > 0.95].mean() < 0.1
    assert (rise > 0.5).sum() == pytest.approx((share > 0.5).sum(), rel=0.1)
    np.testing.assert_array_equal(plain.masks.any(axis=(2, 3)), plain.area > 0)
    without = render_study(patient, scan, bleeds, matrix, np.random.default_rng(1))
    assert without.masks is None
    np.testing.assert_array_equal(without.hu, plain.hu)


def test_a_study_without_bleeds_is_negative() -> None:
    study = _study(3)
    assert not study.labels.any()
    assert study.hu.dtype == np.int16
    assert study.hu.min() >= -1024


def test_tissue_has_realistic_densities() -> None:
    study = _study(5)
    middle = study.hu[np.argsort(study.scan.offsets)[len(study.hu) * 6 // 10]].astype(float)
    inner = middle[40:88, 44:84]
    assert 24 < np.median(inner) < 42
    assert np.percentile(middle, 99.5) > 900
    assert np.percentile(middle[:5], 50) < -950


def test_acquisitions_have_the_shares_of_the_competition() -> None:
    scans = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scans.append(draw_scan(rng, draw_patient(rng)))
    counts = np.array([len(s.offsets) for s in scans])
    assert counts.min() >= MIN_SLICES
    assert counts.max() <= MAX_SLICES
    assert 32 <= np.median(counts) <= 37
    assert 0.85 < np.mean([s.tilt != 0 for s in scans]) < 0.97
    assert {s.pattern for s in scans} == {"even", "thin", "irregular", "passes", "twice"}
    for scan in scans:
        assert len(scan.offsets) == len(scan.thickness)


def test_the_corner_of_a_slice_is_where_its_first_pixel_is() -> None:
    rng = np.random.default_rng(8)
    scan = draw_scan(rng, draw_patient(rng))
    offset = scan.offsets[3]
    straight = replace(scan, pose=np.eye(3, dtype=np.float32))
    points, _ = lattice(straight, np.array([offset], np.float32), MATRIX)
    first = [float(v[0, 0, 0]) + h for v, h in zip(points, scan.head, strict=True)]
    np.testing.assert_allclose(scan.corner(offset, MATRIX), first, atol=1e-2)
    step = [float(v[0, 1, 0] - v[0, 0, 0]) for v in points]
    np.testing.assert_allclose(np.array(step) * MATRIX / scan.field_of_view, scan.columns, atol=1e-3)
    normal = np.cross([1.0, 0.0, 0.0], scan.columns)
    a, b = (np.array(scan.corner(o, MATRIX)) for o in scan.offsets[:2])
    assert (b - a) @ normal == pytest.approx(scan.offsets[1] - scan.offsets[0], abs=1e-3)
