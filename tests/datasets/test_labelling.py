"""Labels of both levels joined to an index."""

from pathlib import Path

import polars as pl
from miniatures import write_dicom

from rsna_seq.config import IndexConfig
from rsna_seq.datasets.imported import label_rows
from rsna_seq.datasets.labelling import Labelled, join_labels
from rsna_seq.stages import index


def joined(folder: Path) -> Labelled:
    """A: positive study. B: negative study. C: slices, one unlabelled. D: both levels. E: no label."""
    for name in "ABCDE":
        write_dicom(folder / name, f"1.{name}", f"P{name}", bleeds=True, series=name)
    found = index.scan(folder, IndexConfig())
    studies = pl.DataFrame(
        {"study": ["1.A", "1.B", "1.D"], "any": [1, 0, 1], "epidural": [0, 0, 1], "subdural": [1, None, None]}
    )
    slices = [f"C.{k}" for k in (1, 2, 3, 4)] + ["D.3", "D.9"]
    of_slices = pl.DataFrame(
        {"study": ["1.C"] * 4 + ["1.D"] * 2, "slice": slices, "subdural": [0, 0, 1, 0, 1, 1]}
    )
    labels = pl.concat([label_rows(studies, "study"), label_rows(of_slices, "slice")])
    return join_labels(found.slices, found.studies, labels, IndexConfig(folds=2, cross_folds=2, holdout=0), 0)


def test_a_class_that_the_study_has_not_is_zero_in_every_slice(tmp_path: Path) -> None:
    made = joined(tmp_path)
    text = made.slices.select(
        "study", *(pl.col(c).cast(pl.String).fill_null(".") for c in ("epidural", "subdural", "any"))
    )
    rows = (
        text.select("study", text=pl.concat_str("epidural", "subdural", "any"))
        .group_by("study", maintain_order=True)
        .all()
    )
    assert dict(rows.rows()) == {
        "1.A": ["0.."] * 5,
        "1.B": ["000"] * 5,
        "1.C": [".0.", ".0.", ".1.", ".0.", "..."],
        "1.D": ["...", "...", ".1.", "...", "..."],
        "1.E": ["..."] * 5,
    }
    assert made.unused == 1
    assert made.study_labels.select("study", "epidural", "subdural", "any").rows() == [
        ("1.A", 0, 1, 1),
        ("1.B", 0, 0, 0),
        ("1.D", 1, None, 1),
    ]


def test_studies_have_what_either_level_says_and_all_labelled_patients_a_fold(tmp_path: Path) -> None:
    made = joined(tmp_path)
    assert made.studies.select("study", "epidural", "subdural", "any").rows() == [
        ("1.A", 0, 1, 1),
        ("1.B", 0, 0, 0),
        ("1.C", None, 1, None),
        ("1.D", 1, 1, 1),
        ("1.E", None, None, None),
    ]
    assert made.studies.filter(pl.col("fold").is_null())["study"].to_list() == ["1.E"]
    assert set(made.slices.drop_nulls("fold")["fold"]) == {0, 1}
