"""Any folder with any CSV: columns are mapped, ids are found, classes may be absent."""

from pathlib import Path

import polars as pl
import pytest
from importing import imported, labels_of
from miniatures import planes, write_csv, write_dicom
from niftis import affine_of, write_nifti

from rsna_seq.errors import UsageError


@pytest.fixture
def dicoms(tmp_path: Path) -> Path:
    """Two DICOM studies in folders named by hospital numbers, both with the PatientID ``P``."""
    for n, name in enumerate(("case 7", "case 8"), 1):
        write_dicom(tmp_path / "data" / name / "series", f"1.2.{n}", "P", bleeds=n == 1)
    return tmp_path / "data"


def labels(folder: Path, *rows: list[object]) -> str:
    return f"imports.labels={write_csv(folder.parent / 'labels.csv', list(rows))}"


@pytest.mark.parametrize(
    "ids", [("1.2.1", "1.2.2"), ("Case 7", "case 8"), ("case 7/series", "case 8/series")]
)
def test_studies_are_found_by_uid_or_folder_with_mapped_columns(dicoms: Path, ids: tuple[str, str]) -> None:
    rows = [["Exam", "ICH", "Subdural haematoma"], [ids[0], "yes", "1"], [ids[1], "No", ""]]
    columns = [
        "imports.columns.id=Exam",
        "imports.columns.any=ICH",
        "imports.columns.subdural=Subdural haematoma",
    ]
    made = imported("folder", dicoms, labels(dicoms, *rows), *columns)
    assert labels_of(made) == {"1.2.1": "....11", "1.2.2": "....00"}, "any = 0 excludes subdural"
    assert set(made.labels["level"]) == {"study"}
    assert "no column for epidural, intraparenchymal, intraventricular, subarachnoid" in made.info.notes[0]


def test_slices_are_found_by_uid_or_file(dicoms: Path) -> None:
    rows = [
        ["id", "subdural"],
        ["1.2.1.1.3", 1],
        ["1.2.1.1.4.dcm", 0],
        ["case 8/series/1.2.2.1.1.dcm", 0],
        ["1.2.9", 1],
    ]
    made = imported("folder", dicoms, labels(dicoms, *rows))
    assert labels_of(made) == {"1.2.1.1.3": "....1.", "1.2.1.1.4": "....0.", "1.2.2.1.1": "....0."}
    assert made.info.notes[0] == "1 of 4 rows of the CSV fit no slice: 1.2.9"


def test_a_mapped_column_has_no_other_meaning_by_its_name(dicoms: Path) -> None:
    rows = [["slice", "any"], ["1.2.1.1.3", 1], ["1.2.1.1.4", 0]]
    made = imported("folder", dicoms, labels(dicoms, *rows), "imports.columns.id=slice")
    assert labels_of(made) == {"1.2.1.1.3": ".....1", "1.2.1.1.4": ".....0"}


def test_slices_of_volumes_are_found_by_number_and_patients_by_column(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="the extra nifti is not installed")
    data, affine = tmp_path / "data", affine_of((-64, -64, 0), (0, 0, 5))
    for name in ("a/ct", "b/ct", "c/other"):
        write_nifti(data / f"{name}.nii.gz", planes(bleeds=name == "a/ct"), affine)
    rows = [
        ["Volume", "Nr", "person", "any"],
        ["a/ct.nii.gz", 3, "X", 1],
        ["other", 1, "X", 0],
        ["b", "2.0", "Y", 0],
        ["b", 9, "Y", 0],
    ]
    columns = ["imports.columns={id: Volume, slice: Nr, patient: person}"]
    made = imported("folder", data, labels(data, *rows), *columns)
    assert labels_of(made) == {"a-ct#3": ".....1", "other#1": ".....0", "b-ct#2": ".....0"}
    assert dict(made.studies.select("study", "patient").rows()) == {"a-ct": "X", "b-ct": "Y", "other": "X"}
    assert made.info.notes[0] == "1 of 4 rows of the CSV fit no slice: b"


def test_without_labels_the_folder_can_be_scored(dicoms: Path) -> None:
    made = imported("folder", dicoms)
    assert (len(made.labels), len(made.headers), made.info.external) == (0, 10, True)


def test_what_is_ambiguous_or_wrong_is_refused(dicoms: Path) -> None:
    two_ids = [["id", "any"], ["P", 1]]
    with pytest.raises(UsageError, match="1 ids fit more than one study: P"):
        imported("folder", dicoms, labels(dicoms, *two_ids))
    with pytest.raises(UsageError, match=r"no id is known \(x\); studies are known as 1\.2\.1, 1\.2\.2"):
        imported("folder", dicoms, labels(dicoms, ["id", "any"], ["x", 1]))
    with pytest.raises(UsageError, match=r"not 0, 1, yes, no or empty: lines 3"):
        imported("folder", dicoms, labels(dicoms, ["id", "any"], ["1.2.1", 1], ["1.2.2", "maybe"]))
    with pytest.raises(UsageError, match="has no column 'Exam'; its columns are id, any"):
        imported("folder", dicoms, labels(dicoms, ["id", "any"], ["1.2.1", 1]), "imports.columns.id=Exam")
    with pytest.raises(UsageError, match="no column is a class"):
        imported("folder", dicoms, labels(dicoms, ["id", "ICH"], ["1.2.1", 1]))
    with pytest.raises(UsageError, match=r"more than one row of labels: 1\.2\.1"):
        imported("folder", dicoms, labels(dicoms, ["id", "any"], ["1.2.1", 1], ["case 7", 0]))
    with pytest.raises(UsageError, match="1 ids fit more than one slice: P"):
        imported("folder", dicoms, labels(dicoms, ["id", "slice", "any"], ["1.2.1", 1, 1], ["P", 1, 0]))
    with pytest.raises(UsageError, match=r"no id is known \(x\)"):
        imported("folder", dicoms, labels(dicoms, ["id", "slice", "any"], ["x", 1, 1]))
    with pytest.raises(UsageError, match=r"1 rows have no number of a slice: lines \[2\]"):
        imported("folder", dicoms, labels(dicoms, ["id", "slice", "any"], ["1.2.1", "inf", 1]))
    two_patients = [["id", "patient", "any"], ["1.2.1.1.1", "X", 1], ["1.2.1.1.2", "Y", 0]]
    with pytest.raises(UsageError, match=r"studies have more than one patient: 1\.2\.1"):
        imported("folder", dicoms, labels(dicoms, *two_patients))


def test_the_level_may_be_given(dicoms: Path) -> None:
    words = labels(dicoms, ["id", "any"], ["case 7", 1], ["1.2.2.1.1", 0], ["1.2.2.1.2", 0])
    assert set(imported("folder", dicoms, words).labels["level"]) == {"slice"}
    made = imported("folder", dicoms, words, "imports.level=study")
    assert made.labels.select(pl.col("study", "level", "any")).rows() == [("1.2.1", "study", 1)]
