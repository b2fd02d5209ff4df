"""CQ500 in its format: two of three readers, labels of studies, boxes of BHX for slices."""

import shutil
from pathlib import Path

import pytest
from importing import imported, labels_of
from miniatures import bhx, cq500, reads_csv, write_csv

from rsna_seq.datasets.cq500 import majority
from rsna_seq.errors import UsageError


def test_labels_of_studies_are_what_two_of_three_readers_say(tmp_path: Path) -> None:
    made = imported("cq500", cq500(tmp_path / "cq500"))
    assert labels_of(made) == {"1.2.1": "000011", "1.2.2": "000000"}
    assert set(made.labels["level"]) == {"study"}
    assert made.studies.rows() == [
        ("1.2.1", "CQ500-CT-1", "CQ500-CT-1", 61.0, None, "GE MEDICAL SYSTEMS LightSpeed VCT"),
        ("1.2.2", "CQ500-CT-2", "CQ500-CT-2", 61.0, None, "GE MEDICAL SYSTEMS LightSpeed VCT"),
    ]
    assert made.info.external
    assert made.info.notes == ("1 studies of reads.csv have no readable image",)
    assert len(made.headers) == 14


def test_studies_may_stay_in_their_zip_files(tmp_path: Path) -> None:
    root = cq500(tmp_path / "cq500")
    unpacked = imported("cq500", root)
    for folder in [p for p in root.iterdir() if p.is_dir()]:
        shutil.make_archive(str(root / folder.name.split()[0]), "zip", root, folder.name)
        shutil.rmtree(folder)
    zipped = imported("cq500", root)
    assert zipped.headers["file"].str.contains(r"^CQ500CT\d\.zip!/CQ500CT\d CQ500CT\d/").all()
    assert zipped.labels.equals(unpacked.labels)
    assert zipped.studies.equals(unpacked.studies)


def test_boxes_of_bhx_label_the_slices_of_their_series(tmp_path: Path) -> None:
    made = imported("cq500", cq500(tmp_path / "cq500"), f"imports.boxes={bhx(tmp_path / 'boxes.csv')}")
    assert labels_of(made) == {
        "1.2.1": "000011",
        "1.2.2": "000000",
        "1.2.1.9.1": "000011",
    }, "a chronic haemorrhage has no known type, so its slice has no label"
    # only the series with boxes is read of that study
    assert made.headers.filter(study="1.2.1")["series"].unique().to_list() == ["1.2.1.9"]
    assert made.headers.filter(study="1.2.2")["series"].n_unique() == 2
    assert set(made.quarantine["reason"]) == {"other_series"}


def test_readers_who_do_not_answer_are_not_counted(tmp_path: Path) -> None:
    file = reads_csv(tmp_path / "reads.csv", {"CQ500-CT-3": {"ICH": (1, 0, 1), "SAH": (1, 0, 1)}})
    text = file.read_text(encoding="utf-8").splitlines()
    cells = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    cells |= {"R3:SAH": "", "R2:IPH": "", "R3:IPH": ""}
    write_csv(file, [list(cells), list(cells.values())])
    assert majority(file).row(0, named=True) == {
        "name": "CQ500-CT-3",
        "any": 1,
        "subarachnoid": None,
        "intraparenchymal": None,
        "intraventricular": 0,
        "subdural": 0,
        "epidural": 0,
    }


def test_other_files_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    root = cq500(tmp_path / "cq500")
    with pytest.raises(UsageError, match="no column 'SOPInstanceUID'"):
        imported("cq500", root, f"imports.boxes={root / 'reads.csv'}")
    other = write_csv(
        tmp_path / "other.csv", [["SOPInstanceUID", "SeriesInstanceUID", "labelName"], ["1", "2", "Subdural"]]
    )
    with pytest.raises(UsageError, match="none of its series"):
        imported("cq500", root, f"imports.boxes={other}")
    (root / "reads.csv").unlink()
    with pytest.raises(UsageError, match=r"no file reads\.csv"):
        imported("cq500", root)
