"""The answer file: the sample's ids in the sample's order, each with a probability."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.submission import fill_set_aside, submission, write_submission
from rsna_seq.tables import PREDICTED_SLICES, QUARANTINE, from_rows

PRIOR = np.full(6, 0.25)


def _sample(path: Path, names: list[str]) -> Path:
    rows = [f"{name}_{c},0.5" for name in names for c in reversed(CLASSES)]
    path.write_text("\n".join(["ID,Label", *rows]) + "\n", encoding="utf-8")
    return path


def _answers(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"slice": names} | {c: [i / 10 + k / 100 for i in range(len(names))] for k, c in enumerate(CLASSES)}
    )


def test_order_and_ids_are_the_samples(tmp_path: Path) -> None:
    sample = _sample(tmp_path / "sample.csv", ["ID_b", "ID_with_bars", "ID_a"])
    answer, unanswered = submission(
        sample, _answers(["ID_a", "ID_b", "ID_with_bars", "ID_more"]), PRIOR, 1e-5
    )
    assert unanswered == 0
    assert answer["ID"].to_list() == pl.read_csv(sample)["ID"].to_list()
    assert answer.filter(pl.col("ID") == "ID_with_bars_subdural")["Label"].item() == pytest.approx(0.24)
    assert answer["Label"].min() == 1e-5


def test_an_image_that_nothing_is_known_of_takes_the_prior(tmp_path: Path) -> None:
    sample = _sample(tmp_path / "sample.csv", ["ID_a", "ID_lost"])
    answer, unanswered = submission(sample, _answers(["ID_a"]), PRIOR, 1e-5)
    assert unanswered == 1
    assert answer.filter(pl.col("ID").str.starts_with("ID_lost"))["Label"].to_list() == [0.25] * 6


def test_a_lost_slice_takes_the_nearest_of_its_study() -> None:
    rows = [
        {"study": s, "series": "", "slice": f"{s}{i}", "file": "", "z_mm": 5.0 * i}
        | dict.fromkeys(CLASSES, i / 10)
        for s in "AB"
        for i in range(3)
    ]
    slices = from_rows(rows, PREDICTED_SLICES)
    lost = [
        {"file": "x", "study": "A", "slice": "A9", "z_mm": 9.0},
        {"file": "y", "study": "A", "slice": "A7", "z_mm": 7.5},
        {"file": "z", "study": "C", "slice": "C1", "z_mm": 5.0},
        {"file": "w", "study": None, "slice": None, "z_mm": None},
    ]
    filled = fill_set_aside(slices, from_rows(lost, QUARANTINE))
    assert dict(filled.select("slice", "any").rows()) == {"A9": pytest.approx(0.2), "A7": pytest.approx(0.15)}


def test_a_sample_with_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("ID,Label\nID_a_fracture,0.5\n", encoding="utf-8")
    with pytest.raises(UsageError, match="ID_a_fracture"):
        submission(tmp_path / "sample.csv", _answers(["ID_a"]), PRIOR, 1e-5)


def test_an_answer_that_is_not_the_samples_is_never_written(tmp_path: Path) -> None:
    sample = _sample(tmp_path / "sample.csv", ["ID_a"])
    answer, _ = submission(sample, _answers(["ID_a"]), PRIOR, 1e-5)
    for wrong in (answer.reverse(), answer.head(3), answer.with_columns(Label=pl.lit(float("nan")))):
        with pytest.raises(AssertionError):
            write_submission(wrong, sample, tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()
