"""NIfTI volumes are read like the DICOM slices that they were made from."""

import gzip
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dicoms import head, write_slice
from niftis import affine_of, write_nifti

from rsna_seq.config import CacheConfig, IndexConfig
from rsna_seq.imaging.nifti import mask_values
from rsna_seq.reasons import ExclusionError
from rsna_seq.stages import cache, index

nibabel = pytest.importorskip("nibabel", reason="the extra nifti is not installed")
TILT = math.radians(18)
TILTED = (0.0, math.cos(TILT), math.sin(TILT))
"""Column direction of a gantry that is tilted by 18 degrees; the table still moves along z."""
PLANES = [
    np.pad(head(5.0 * k, bleed=k == 2)[:, 4:], ((0, 0), (0, 4)), constant_values=-1000) for k in range(6)
]
"""Heads that are not symmetrical from left to right."""
CFG = CacheConfig(size=64, crop=False, brain_hu=None)


def volume(path: Path, column: tuple[float, ...] = (0, 1, 0)) -> Path:
    return write_nifti(path, PLANES, affine_of((-64, -64, 10), (0, 0, 5), column=column))


def both(folder: Path, column: tuple[float, ...]) -> tuple[index.Scan, index.Scan]:
    """The same study as DICOM and as NIfTI."""
    for k, hu in enumerate(PLANES):
        place = {
            "ImagePositionPatient": [-64, -64, 10 + 5.0 * k],
            "ImageOrientationPatient": [1, 0, 0, *column],
        }
        write_slice(folder / "dicom", f"ID_{k}", hu=hu, **place)
    volume(folder / "nifti" / "head.nii.gz", column)
    return index.scan(folder / "dicom", IndexConfig()), index.scan(folder / "nifti", IndexConfig())


def pixels(found: index.Scan) -> np.ndarray:
    read = cache.apply(found.slices, found.root, CFG)
    assert read.volume is not None
    return read.volume.hu


@pytest.mark.parametrize("column", [(0.0, 1.0, 0.0), TILTED], ids=["straight", "tilted gantry"])
def test_a_volume_is_read_as_the_slices_that_it_was_made_from(
    tmp_path: Path, column: tuple[float, ...]
) -> None:
    dicom, nifti = both(tmp_path, column)
    assert nifti.quarantine.is_empty()
    same = ["order", "rows", "columns", "flags"]
    assert nifti.slices.select(same).equals(dicom.slices.select(same))
    for name in ("z_mm", "gap_below_mm", "gap_above_mm", "row_mm", "col_mm"):
        assert nifti.slices[name].to_list() == pytest.approx(dicom.slices[name].to_list(), abs=2e-3), name
    assert nifti.studies["tilt_deg"][0] == pytest.approx(math.degrees(math.asin(column[2])), abs=1e-4)
    assert (pixels(nifti) == pixels(dicom)).all()


def test_positions_of_a_tilted_gantry_are_those_along_the_normal(tmp_path: Path) -> None:
    found = index.scan(volume(tmp_path / "head.nii", TILTED), IndexConfig()).slices
    assert found["gap_below_mm"][1:].to_list() == pytest.approx([5 * math.cos(TILT)] * 5, abs=2e-3)


@pytest.mark.parametrize("code", ["RAS", "LPI", "ARS", "SPL", "PIR"])
def test_the_order_of_the_axes_does_not_matter(tmp_path: Path, code: str) -> None:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    stored = nibabel.load(volume(tmp_path / "a" / "head.nii", TILTED))
    change = ornt_transform(io_orientation(stored.affine), axcodes2ornt(tuple(code)))
    (tmp_path / "b").mkdir()
    nibabel.save(stored.as_reoriented(change), tmp_path / "b" / "head.nii")
    one, other = (index.scan(tmp_path / name, IndexConfig()) for name in "ab")
    assert other.slices["z_mm"].to_list() == pytest.approx(one.slices["z_mm"].to_list(), abs=2e-3)
    assert (pixels(other) == pixels(one)).all()


def test_scaled_and_floating_point_values_become_hu(tmp_path: Path) -> None:
    affine = affine_of((-64, -64, 0), (0, 0, 5))
    image = nibabel.Nifti1Image(np.stack([p.T for p in PLANES], axis=2).astype(np.float32) / 2 - 500, affine)
    image.header.set_slope_inter(2, 1000)
    image.header.set_data_dtype(np.int16)
    (tmp_path / "scaled").mkdir()
    image.to_filename(tmp_path / "scaled" / "a.nii")
    write_nifti(tmp_path / "float" / "a.nii", [p + 0.3 for p in PLANES], affine, np.float32)
    found = index.scan(tmp_path / "float", IndexConfig())
    assert (pixels(found) == np.stack(PLANES)).all()
    stored = nibabel.load(tmp_path / "scaled" / "a.nii").get_fdata()[:, :, 3].T
    assert (
        pixels(index.scan(tmp_path / "scaled", IndexConfig()))[3] == np.clip(np.rint(stored), -1024, None)
    ).all()


def test_without_a_known_orientation_distances_alone_are_used(tmp_path: Path) -> None:
    image = nibabel.load(volume(tmp_path / "head.nii"))
    image.set_sform(image.affine, code=0)
    image.set_qform(image.affine, code=0)
    nibabel.save(image, tmp_path / "unknown.nii")
    found = index.scan(tmp_path / "unknown.nii", IndexConfig()).slices
    assert found["gap_below_mm"][1:].to_list() == [5.0] * 5
    assert set(found["flags"]) == {"no_position"}


def reason(path: Path) -> tuple[str, str]:
    scan = index.scan(path, IndexConfig())
    assert scan.slices.is_empty()
    return scan.quarantine["reason"][0], scan.quarantine["detail"][0]


def test_what_is_no_ct_volume_is_refused_with_a_reason(tmp_path: Path) -> None:
    affine = affine_of((-64, -64, 0), (0, 0, 5))
    assert reason(write_nifti(tmp_path / "mask.nii", [(p > 60) * 1 for p in PLANES], affine))[0] == "not_hu"
    offset = write_nifti(tmp_path / "offset.nii", [p + 1024 for p in PLANES], affine)
    assert reason(offset) == ("not_hu", "NIfTI: the lowest value of the middle slices is 24")
    assert len(index.scan(offset, IndexConfig(assume_hu=True)).slices) == 6
    coronal = affine_of((-64, -64, 0), (0, 5, 0), column=(0, 0, 1), spacing=1.0)
    assert reason(write_nifti(tmp_path / "coronal.nii", PLANES, coronal))[0] == "not_axial"
    whole = volume(tmp_path / "whole.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.nii")[0] == "pixels_truncated"
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(whole)[:-400])
    assert reason(tmp_path / "cut.nii.gz")[0] == "pixels_truncated"
    (tmp_path / "text.nii").write_bytes(b"not an image" * 40)
    assert reason(tmp_path / "text.nii")[0] == "header_invalid"
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4, 3), -1000, np.int16), affine), tmp_path / "four.nii")
    assert reason(tmp_path / "four.nii")[0] == "bad_pixel_format"


def test_a_volume_that_changed_after_indexing_is_not_read(tmp_path: Path) -> None:
    found = index.scan(volume(tmp_path / "head.nii"), IndexConfig())
    write_nifti(tmp_path / "head.nii", PLANES[:5], affine_of((-64, -64, 10), (0, 0, 5)))
    read = cache.apply(found.slices, found.root, CFG)
    assert read.volume is None
    assert {row["reason"] for row in read.excluded} == {"file_changed"}


def test_values_of_a_mask_are_found_slice_by_slice(tmp_path: Path) -> None:
    affine = affine_of((-64, -64, 10), (0, 0, 5))
    masks = [np.zeros((64, 64)), np.full((64, 64), 2), np.eye(64) * 5, *[np.zeros((64, 64))] * 3]
    image, mask = volume(tmp_path / "head.nii"), write_nifti(tmp_path / "mask.nii", masks, affine, np.uint8)
    assert mask_values(str(image), str(mask)) == [frozenset(), {2}, {5}, *[frozenset()] * 3]
    short = write_nifti(tmp_path / "short.nii", masks[:4], affine, np.uint8)
    with pytest.raises(ExclusionError, match="shape"):
        mask_values(str(image), str(short))


def test_the_file_is_stored_once_for_all_its_slices(tmp_path: Path) -> None:
    found = index.scan(volume(tmp_path / "ct" / "049.nii.gz"), IndexConfig()).slices
    assert found["slice"].to_list() == [f"ct-049#{k}" for k in range(1, 7)]
    assert found.select(pl.col("file", "study", "patient").n_unique()).row(0) == (1, 1, 1)
