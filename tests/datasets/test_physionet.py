"""PhysioNet ct-ich in both of its formats gives the same labels and, as far as possible, the same HU."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from importing import imported, labels_of
from miniatures import ct_ich_jpeg, ct_ich_nifti, planes

from rsna_seq.config import CacheConfig, IndexConfig
from rsna_seq.errors import UsageError
from rsna_seq.stages import cache, index

EXPECTED = {f"ct-ich-{n:03d}#{k}": "000000" for n in (49, 50) for k in range(1, 6)} | {
    "ct-ich-049#3": "010001",
    "ct-ich-049#4": "010011",
}
ABOUT = [("ct-ich-049", 67.0, "M"), ("ct-ich-050", 0.5, "F")]


def test_nifti_of_version_1_3(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="the extra nifti is not installed")
    made = imported("physionet", ct_ich_nifti(tmp_path / "ct_ich"))
    assert labels_of(made) == EXPECTED
    assert made.studies.select("study", "age", "sex").rows() == ABOUT
    assert made.info.notes == ()
    scan = index.scan(tmp_path / "imported_ct_ich", IndexConfig())
    assert scan.studies.select("study", "slices").rows() == [("ct-ich-049", 5), ("ct-ich-050", 5)]
    assert scan.studies["tilt_deg"].to_list() == pytest.approx([10, 10], abs=1e-3)
    assert scan.slices["slice"].to_list() == list(EXPECTED)


def test_jpeg_of_version_1_2(tmp_path: Path) -> None:
    made = imported("physionet", ct_ich_jpeg(tmp_path / "jpeg"))
    assert labels_of(made) == EXPECTED
    assert made.studies.select("study", "age", "sex").rows() == ABOUT
    (note,) = made.info.notes
    assert "recovered from two 8-bit windows" in note
    scan = index.scan(tmp_path / "imported_jpeg", IndexConfig())
    assert scan.slices["slice"].to_list() == list(EXPECTED)
    assert scan.studies["spacing_mm"].to_list() == [5.0, 5.0]
    assert all({"lossy", "no_position"} <= set(flags.split(",")) for flags in scan.studies["flags"])


def test_hu_of_jpeg_are_recovered_as_far_as_the_windows_allow(tmp_path: Path) -> None:
    imported("physionet", ct_ich_jpeg(tmp_path / "jpeg"))
    scan = index.scan(tmp_path / "imported_jpeg", IndexConfig())
    first = scan.slices.filter(study="ct-ich-049")
    read = cache.apply(first, scan.root, CacheConfig(size=64, crop=False, brain_hu=None))
    assert read.volume is not None
    truth = np.stack(planes(bleeds=True))
    error = np.abs(read.volume.hu - truth)
    soft, bone, air = (truth > -20) & (truth < 100), truth > 100, truth < -900
    assert np.median(error[soft]) <= 1
    assert np.percentile(error[soft], 90) <= 12, "JPEG, at the edges of bone"
    assert np.percentile(error[bone], 90) <= 50
    assert np.percentile(read.volume.hu[air], 90) <= -850, "the bone window ends at -900"


def test_a_slice_without_its_bone_window_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = ct_ich_jpeg(tmp_path / "jpeg")
    (root / "Patients_CT" / "049" / "bone" / "2.jpg").unlink()
    made = imported("physionet", root)
    lost = made.quarantine.select("file", "reason", "detail").rows()
    assert lost == [("Patients_CT/049/brain/2.jpg", "unreadable_file", "bone window: FileNotFoundError")]
    assert "ct-ich-049#2" not in labels_of(made)
    assert "1 rows of the label CSV name slices that are not there" in made.info.notes


def test_rows_that_contradict_themselves_count_as_haemorrhage(tmp_path: Path) -> None:
    root = ct_ich_jpeg(tmp_path / "jpeg")
    file = root / "hemorrhage_diagnosis.csv"
    file.write_text(
        file.read_text(encoding="utf-8").replace("50,2,0,0,0,0,0,1,0", "50,2,0,0,1,0,0,1,0"), encoding="utf-8"
    )
    made = imported("physionet", root)
    assert labels_of(made)["ct-ich-050#2"] == "000101"
    assert any("count as haemorrhage" in note for note in made.info.notes)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="labels of slices: no file"):
        imported("physionet", tmp_path / "empty")
    labels = ct_ich_jpeg(tmp_path / "jpeg") / "hemorrhage_diagnosis.csv"
    with pytest.raises(UsageError, match="is this the folder of ct-ich"):
        imported("physionet", tmp_path / "empty", f"imports.labels={labels}")
    text = labels.read_text(encoding="utf-8").replace("49,3,", "49,three,")
    labels.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"no number of patient or slice: lines \[4\]"):
        imported("physionet", tmp_path / "jpeg")


def test_both_versions_name_slices_alike(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="the extra nifti is not installed")
    names = ["study", "slice", "patient"]
    one, other = (
        imported("physionet", made(tmp_path / made.__name__)).headers.select(names).sort(pl.all())
        for made in (ct_ich_nifti, ct_ich_jpeg)
    )
    assert one.equals(other)
