"""Imported sets: what follows from other classes, contradictions, several sets as one."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from importing import imported
from miniatures import bhsd, write_csv, write_dicom

from rsna_seq.config import IndexConfig
from rsna_seq.datasets.imported import label_rows, must_agree, read_set, read_sets
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.stages import index


@pytest.mark.parametrize(
    ("known", "expected"),
    [  # what has no column stays unknown
        ({"any": 0}, (None, None, None, None, None, 0)),
        ({"any": 0, "subdural": None, "epidural": 0}, (0, None, None, None, 0, 0)),
        ({"any": None, "subdural": 1}, (None, None, None, None, 1, 1)),
        ({"subdural": 1}, (None, None, None, None, 1, None)),
        ({"subdural": 0}, (None, None, None, None, 0, None)),
        ({"subdural": 1, "any": 0}, (None, None, None, None, 1, 1)),
        (dict.fromkeys(CLASSES[:5], 0), (0, 0, 0, 0, 0, 0)),
        ({**dict.fromkeys(CLASSES[:5]), "epidural": 1}, (1, None, None, None, None, 1)),
        ({**dict.fromkeys(CLASSES[:5], 0), "epidural": None}, (None, 0, 0, 0, 0, None)),
        ({**dict.fromkeys(CLASSES[:5], 0), "any": 1}, (0, 0, 0, 0, 0, 1)),
        ({"any": 1}, (None, None, None, None, None, 1)),
    ],
)
def test_what_follows_from_other_classes_is_filled_in(
    known: dict[str, int | None], expected: tuple[int | None, ...]
) -> None:
    assert label_rows(pl.DataFrame({"study": ["S"], **{c: [v] for c, v in known.items()}}), "study").row(
        0
    ) == (
        "S",
        None,
        "study",
        *expected,
    )


def test_a_slice_must_not_have_what_its_study_has_not() -> None:
    study = label_rows(pl.DataFrame({"study": ["S"], "subdural": [0], "any": [1]}), "study")
    slices = pl.DataFrame({"study": ["S", "S"], "slice": ["a", "b"], "subdural": [0, 1]})
    must_agree(pl.concat([study, label_rows(slices.head(1), "slice")]))
    with pytest.raises(UsageError, match="label of their study excludes: b"):
        must_agree(pl.concat([study, label_rows(slices, "slice")]))


def two_sets(folder: Path) -> list[Path]:
    for n in (1, 2):
        write_dicom(folder / f"site{n}" / "data", f"1.2.{n}", f"P{n}", bleeds=n == 1)
        rows: list[list[object]] = [["id", "any"], [f"1.2.{n}", int(n == 1)]]
        imported(
            "folder", folder / f"site{n}" / "data", f"imports.labels={write_csv(folder / f'{n}.csv', rows)}"
        )
    return [folder / f"site{n}" / "imported_data" for n in (1, 2)]


def test_several_sets_are_read_as_one(tmp_path: Path) -> None:
    folders = two_sets(tmp_path)
    sets = read_sets(folders)
    assert sets.root == tmp_path
    assert sets.labels.select("study", "any").rows() == [("1.2.1", 1), ("1.2.2", 0)]
    found = index.scan(folders, IndexConfig())
    assert found.slices["file"].str.starts_with("site").all()
    assert all((found.root / file).is_file() for file in found.slices["file"])
    assert len(index.scan(folders[0], IndexConfig()).slices) == 5
    with pytest.raises(UsageError, match="not written by rsna-seq import"):
        index.scan([folders[0], tmp_path / "site2" / "data"], IndexConfig())


def test_a_damaged_set_is_refused(tmp_path: Path) -> None:
    folder = two_sets(tmp_path)[0]
    shutil.copy(tmp_path / "site2" / "imported_data" / "labels.parquet", folder / "labels.parquet")
    with pytest.raises(IntegrityError, match=r"labels\.parquet"):
        read_set(folder)


def test_patients_of_a_derived_set_share_a_fold_with_themselves(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="the extra nifti is not installed")
    imported("bhsd", bhsd(tmp_path / "bhsd"))
    write_dicom(tmp_path / "rsna" / "x", "ID_study", "ID_0b10cbee", bleeds=True)
    imported("folder", tmp_path / "rsna")
    found = index.scan([tmp_path / "imported_bhsd", tmp_path / "imported_rsna"], IndexConfig())
    assert found.studies.filter(patient="ID_0b10cbee")["study"].to_list() == ["ID_f91d6a7cd2", "ID_study"]
