"""The competition's layout as an imported set."""

from pathlib import Path

import pytest
from dicoms import write_set
from importing import imported, labels_of

from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.errors import UsageError


def test_labels_of_slices_are_those_of_the_csv(tmp_path: Path) -> None:
    root = write_set(tmp_path / "rsna", studies=3, slices=4)
    (root / "stage_2_train" / "ID_000000abc.dcm").unlink()
    made = imported("rsna2019", root)
    truth = {row[0]: "".join(map(str, row[1:])) for row in read_labels(root / "stage_2_train.csv").rows()}
    truth.pop("ID_000000abc")
    assert labels_of(made) == truth
    assert "010001" in truth.values()
    assert made.info.notes == ("no readable slice for 1 of the labels",)
    assert set(made.headers["patient"]) == {"ID_p0", "ID_p1", "ID_p2"}, "test images are not imported"
    assert not made.info.external


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is this the folder of the competition"):
        imported("rsna2019", tmp_path)
