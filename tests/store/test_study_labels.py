"""Coded labels of slabs, and which studies were labelled by slices."""

import numpy as np
import polars as pl

from rsna_seq.labels import CLASSES
from rsna_seq.store.study_labels import ONE_OF, UNKNOWN, coded_labels, slice_labelled
from rsna_seq.store.tables import STUDY_LABELS

NONE = dict.fromkeys(CLASSES)


def rows(*labels: tuple[str, int | None, int | None]) -> pl.DataFrame:
    """Study, epidural and any of each slab; the other classes are 0."""
    schema = {"study": pl.String} | dict.fromkeys(CLASSES, pl.Int8)
    return pl.DataFrame(
        [dict.fromkeys(CLASSES, 0) | {"study": s, "epidural": e, "any": a} for s, e, a in labels], schema
    )


def whole(**studies: tuple[int | None, int | None]) -> pl.DataFrame:
    """STUDY_LABELS: epidural and any; the others are null."""
    said = [NONE | {"study": s, "epidural": e, "any": a} for s, (e, a) in studies.items()]
    return pl.DataFrame(said, schema=dict(STUDY_LABELS))


SLABS = rows(("A", None, None), ("A", 0, None), ("B", 0, 0), ("C", None, None), ("C", 1, 1), ("D", None, 0))


def test_unknown_slabs_of_a_positive_study_are_one_of_them() -> None:
    labels = coded_labels(SLABS, whole(A=(1, 1), B=(0, 0), C=(1, 1)))
    expected = {"epidural": [ONE_OF, 0, 0, UNKNOWN, 1, UNKNOWN], "any": [ONE_OF, ONE_OF, 0, UNKNOWN, 1, 0]}
    for name, values in expected.items():
        assert labels[:, CLASSES.index(name)].tolist() == values, "in C a slab is known to have it"
    assert (labels[:, 1] == 0).all()


def test_complete_labels_are_not_changed() -> None:
    full = rows(("A", 0, 1), ("A", 1, 1))
    assert (coded_labels(full, None) == full.select(CLASSES).to_numpy()).all()
    assert coded_labels(full, None).dtype == np.float32
    assert slice_labelled(full, None) is full


def test_only_studies_with_a_labelled_slice_count_as_labelled_by_slices() -> None:
    made = slice_labelled(SLABS, whole(A=(1, 1), B=(0, 0), C=(1, 1)))
    assert made["any"].to_list() == [None, None, None, None, 1, 0], "B was read as a whole"
    assert made["subdural"].to_list() == [None, None, None, 0, 0, 0]
