"""Headers to a table: order, duplicates, series, labels, and what is quarantined."""

from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from dicoms import write_set, write_slice
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.errors import NothingUsableError, UsageError
from rsna_seq.parallel import local as workers
from rsna_seq.stages import cache, index
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.run_folder import RunFolder
from rsna_seq.store.tables import QUARANTINE, SLICES, read_table

CFG = IndexConfig(folds=2, cross_folds=2, holdout=0)


def scan(folder: Path, **changes: object) -> index.Scan:
    return index.scan(folder, CFG.model_copy(update=changes))


def test_order_is_that_of_positions_along_a_tilted_normal(tmp_path: Path) -> None:
    angle = np.deg2rad(18)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)
    places = np.random.default_rng(0).permutation(9) * 5.0
    for i, place in enumerate(places):
        # the table slides along z, so x and y stay: z alone is not the distance along the normal
        position = np.array([-64.0, -64.0, place / normal[2]])
        write_slice(
            tmp_path,
            f"ID_{i}",
            ImagePositionPatient=[round(float(p), 6) for p in position],
            ImageOrientationPatient=[float(round(v, 8)) for v in (*row, *column)],
        )
    slices = scan(tmp_path).slices
    by_hand = [f"ID_{i}" for i in np.argsort(places)]
    assert slices["slice"].to_list() == by_hand
    np.testing.assert_allclose(slices["gap_below_mm"].to_numpy()[1:], 5.0, atol=2e-3)
    assert slices["gap_below_mm"][0] is None
    assert scan(tmp_path).studies["tilt_deg"][0] == pytest.approx(18, abs=0.01)


def test_a_normal_that_points_down_is_turned_up(tmp_path: Path) -> None:
    for i in range(4):
        write_slice(tmp_path, f"ID_{i}", z=5.0 * i, ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    assert scan(tmp_path).slices["slice"].to_list() == [f"ID_{i}" for i in range(4)]


@settings(max_examples=25)
@given(st.permutations(range(7)))
def test_the_order_of_files_changes_nothing(names: list[int]) -> None:
    headers = pl.DataFrame(
        {
            "study": ["S"] * 7,
            "slice": [f"ID_{n}" for n in names],
            "pass": [0] * 7,
            "frame": [0] * 7,
            "z_mm": [5.0 * n for n in names],
        }
    )
    from rsna_seq.imaging.geometry import order

    assert order(headers)["slice"].to_list() == [f"ID_{n}" for n in range(7)]


def test_values_are_those_that_pydicom_reads(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    slices = scan(root / "stage_2_train").slices
    assert len(slices) == 36
    for row in slices.iter_rows(named=True):
        dataset = pydicom.dcmread(root / "stage_2_train" / row["file"])
        assert row["slice"] == dataset.SOPInstanceUID
        assert row["patient"] == dataset.PatientID
        assert (row["rows"], row["columns"]) == (dataset.Rows, dataset.Columns)
        assert (row["slope"], row["intercept"]) == (dataset.RescaleSlope, dataset.RescaleIntercept)
        assert [row["row_mm"], row["col_mm"]] == list(dataset.PixelSpacing)
        raw = (root / "stage_2_train" / row["file"]).read_bytes()[row["pixel_offset"] :]
        assert raw == dataset.PixelData


@pytest.mark.parametrize(
    ("change", "reason", "action"),
    [
        ({"Modality": "MR"}, "not_ct", "skipped"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer", "skipped"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not_axial", "skipped"),
        ({"RescaleSlope": None}, "no_rescale", "quarantined"),
        ({"RescaleSlope": 0}, "bad_rescale", "quarantined"),
        ({"Rows": 0}, "bad_dimensions", "quarantined"),
        ({"PhotometricInterpretation": "RGB"}, "bad_pixel_format", "quarantined"),
        ({"PixelData": None}, "pixels_missing", "quarantined"),
        ({"PixelData": None, "Rows": None, "Columns": None}, "not_an_image", "skipped"),
        ({"RescaleSlope": "1e-300"}, "bad_rescale", "quarantined"),
        ({"RescaleType": "Z_EFF"}, "not_hu", "quarantined"),
        ({"StudyInstanceUID": None}, "no_uid", "quarantined"),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not_ct", "skipped"),
    ],
)
def test_what_is_not_read_has_a_reason(
    tmp_path: Path, change: dict[str, object], reason: str, action: str
) -> None:
    write_slice(tmp_path, "ID_good")
    write_slice(tmp_path, "ID_bad", z=5.0, **change)
    found = scan(tmp_path)
    assert found.slices["slice"].to_list() == ["ID_good"]
    assert found.quarantine.select("file", "reason", "action").rows() == [("ID_bad.dcm", reason, action)]


def test_files_that_are_not_dicom_are_quarantined(tmp_path: Path) -> None:
    good = write_slice(tmp_path, "ID_good")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "notes.dcm").write_text("not a DICOM file", encoding="utf-8")
    (tmp_path / "cut.dcm").write_bytes(good.read_bytes()[:-100])
    rows = scan(tmp_path).quarantine.select("file", "reason").rows()
    assert rows == [("cut.dcm", "pixels_truncated"), ("empty.dcm", "empty_file"), ("notes.dcm", "not_dicom")]


def test_an_unspecified_unit_is_hu_but_not_in_maps_of_blood_flow(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_1", RescaleType="US")
    write_slice(tmp_path, "ID_2", z=5.0, RescaleType="OD")
    flow = ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
    write_slice(tmp_path, "ID_3", z=10.0, RescaleType="US", ImageType=flow)
    found = scan(tmp_path)
    assert found.slices["slice"].to_list() == ["ID_1"]
    assert sorted(found.quarantine["reason"]) == ["derived_image", "not_hu"]


def test_assume_hu_reads_a_slice_without_rescale(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_1", RescaleSlope=None, RescaleIntercept=None)
    assert len(scan(tmp_path, assume_hu=True).slices) == 1


def test_one_uid_twice_is_merged_where_the_bytes_agree_and_refused_where_not(tmp_path: Path) -> None:
    file = write_slice(tmp_path, "ID_same")
    (tmp_path / "copy.dcm").write_bytes(file.read_bytes())
    write_slice(tmp_path, "ID_other", z=5.0)
    write_slice(tmp_path / "b", "ID_other", z=10.0)
    found = scan(tmp_path)
    assert found.slices["slice"].to_list() == ["ID_same"]
    assert sorted(found.quarantine["reason"]) == ["duplicate_file", "duplicate_uid", "duplicate_uid"]


def test_the_soft_kernel_is_read_before_bone_unless_another_series_is_asked(tmp_path: Path) -> None:
    for i in range(3):
        write_slice(tmp_path, f"ID_soft{i}", z=5.0 * i, SeriesInstanceUID="soft", ConvolutionKernel="H30s")
    for i in range(5):
        write_slice(tmp_path, f"ID_bone{i}", z=3.0 * i, SeriesInstanceUID="bone", ConvolutionKernel="BONE")
    found = scan(tmp_path)
    assert found.studies.select("series", "grounds").rows() == [("soft", "soft kernel before bone")]
    assert scan(tmp_path, series="bone").studies.select("series", "grounds").rows() == [("bone", "as asked")]


def test_two_patients_in_one_study_are_skipped(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_1", patient="A")
    write_slice(tmp_path, "ID_2", patient="B", z=5.0)
    write_slice(tmp_path, "ID_3", patient="C", study="ID_good", z=5.0)
    found = scan(tmp_path)
    assert found.studies["study"].to_list() == ["ID_good"]
    assert found.quarantine["reason"].to_list() == ["mixed_patients"] * 2


@pytest.mark.parametrize(
    ("train", "csv", "stage"),
    [
        ("stage_2_train", "stage_2_train.csv", 2),
        ("stage_2_train_images", "stage_2_train.csv", 2),
        ("RSNA/stage_1/stage_1_train", "RSNA/stage_1/stage_1_train.csv", 1),
    ],
)
def test_both_layouts_are_found(tmp_path: Path, train: str, csv: str, stage: int) -> None:
    source = write_set(tmp_path / "source")
    root = tmp_path / "root"
    (root / train).parent.mkdir(parents=True)
    (source / "stage_2_train").rename(root / train)
    (source / "stage_2_train.csv").rename(root / csv)
    index.run(CFG, Context(data=DataConfig(root=root, stage=stage)), RunFolder(tmp_path))  # type: ignore[arg-type]
    slices = read_table(tmp_path / "1_index" / "slices.parquet", SLICES)
    assert len(slices) == 36
    assert slices["any"].sum() == 6
    assert slices.group_by("patient").agg(pl.col("fold").n_unique())["fold"].max() == 1


def test_conflicting_labels_are_refused_and_identical_ones_merged(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data")
    csv = root / "stage_2_train.csv"
    lines = csv.read_text(encoding="utf-8").splitlines()
    csv.write_text("\n".join(lines + lines[1:7]) + "\n", encoding="utf-8")
    index.run(CFG, Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    csv.write_text("\n".join([*lines, lines[1][:-1] + "1"]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="conflicting labels"):
        index.run(CFG, Context(data=DataConfig(root=root)), RunFolder(tmp_path))


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_set(tmp_path)
    alone = scan(root / "stage_2_train")
    monkeypatch.setattr(workers, "_WORTH_S", 0.0)
    monkeypatch.setattr(index, "_CHUNK", 10)
    shared = index.scan(root / "stage_2_train", CFG, workers=2)
    assert shared.slices.equals(alone.slices)


def test_nothing_usable_leaves_its_reasons_and_no_artefact(tmp_path: Path) -> None:
    write_slice(tmp_path / "in", "ID_a", RescaleSlope=0)
    (tmp_path / "in" / "notes.txt").write_text("no DICOM", encoding="utf-8")
    with pytest.raises(NothingUsableError, match="1 bad_rescale, 1 not_dicom"):
        index.run(CFG, Context(data=DataConfig(root=tmp_path / "in")), RunFolder(tmp_path))
    aside = read_table(tmp_path / "1_index" / "quarantine.parquet", QUARANTINE)
    assert sorted(aside["reason"]) == ["bad_rescale", "not_dicom"]
    assert not (tmp_path / "1_index" / "manifest.json").exists()
    write_slice(tmp_path / "in", "ID_b")
    index.run(CFG, Context(data=DataConfig(root=tmp_path / "in")), RunFolder(tmp_path))
    with pytest.raises(UsageError, match="does not exist"):
        index.run(CFG, Context(data=DataConfig(root=tmp_path / "none")), RunFolder(tmp_path))


@pytest.mark.parametrize("name", ["ID_a.dcm", "Scans!/ID_a.dcm", "link.dcm"])
def test_a_single_file_is_indexed_and_cached(tmp_path: Path, name: str) -> None:
    file = write_slice(tmp_path / "Scans!", "ID_a")
    (tmp_path / "link.dcm").symlink_to(file)
    (tmp_path / "ID_a.dcm").write_bytes(file.read_bytes())
    root = tmp_path / name
    index.run(CFG, Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    cache.run(CacheConfig(size=32), Context(data=DataConfig(root=root)), RunFolder(tmp_path))
    assert len(PixelCache(tmp_path / "2_cache")) == 1


def test_a_series_that_is_found_nowhere_or_cannot_be_used_is_refused(tmp_path: Path) -> None:
    write_slice(tmp_path, "ID_a")
    write_slice(tmp_path, "ID_scout", SeriesInstanceUID="scout", ImageType=["ORIGINAL", "LOCALIZER"])
    with pytest.raises(UsageError, match="not found in any study"):
        scan(tmp_path, series="mistyped")
    with pytest.raises(UsageError, match="no usable slice"):
        scan(tmp_path, series="scout")
    assert len(scan(tmp_path, series="ID_s1_series").slices) == 1


def test_a_cache_without_a_slice_leaves_its_reasons(tmp_path: Path) -> None:
    write_slice(tmp_path / "in", "ID_a", RescaleIntercept=20000)
    index.run(CFG, Context(data=DataConfig(root=tmp_path / "in")), RunFolder(tmp_path))
    with pytest.raises(NothingUsableError, match="1 implausible_hu"):
        cache.run(CacheConfig(size=32), Context(data=DataConfig(root=tmp_path / "in")), RunFolder(tmp_path))
    aside = read_table(tmp_path / "2_cache" / "quarantine.parquet", QUARANTINE)
    assert aside["reason"].to_list() == ["implausible_hu"]


def test_real_studies_are_ordered_by_true_position(real: Path) -> None:
    slices = scan(real / "cranium").slices
    assert slices["study"].n_unique() == 10
    for _, rows in slices.group_by("study"):
        places = []
        for file in rows["file"]:
            header = pydicom.dcmread(real / "cranium" / file, stop_before_pixels=True)
            cosines = [float(v) for v in header.ImageOrientationPatient]
            normal = np.cross(cosines[:3], cosines[3:])
            places.append(
                float(np.dot(normal, [float(v) for v in header.ImagePositionPatient])) * np.sign(normal[2])
            )
        assert places == sorted(places)
