"""The submission: the ids of the sample in its order, each with a probability."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rsna_seq.datasets.rsna2019.submission import (
    fill_excluded,
    read_escaped,
    score_answer,
    submission,
    write_csv,
    write_submission,
)
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASS_WEIGHTS, CLASSES
from rsna_seq.store.tables import PREDICTED_SLICES, QUARANTINE, from_rows

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
    filled = fill_excluded(slices, from_rows(lost, QUARANTINE))
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


def test_ids_of_any_sample_are_answered_byte_for_byte(tmp_path: Path) -> None:
    names = ["=1+1", "ID_a", "-2", "@x", "+y", "007", "a,b", "'q"]
    sample = _sample(tmp_path / "plain.csv", [f'"{n}"' if "," in n else n for n in names])
    text = sample.read_text(encoding="utf-8").replace('"a,b"', '"a,b').replace("a,b_", "a,b_").splitlines()
    lines = [line if "a,b" not in line else line.replace(",0.5", '",0.5') for line in text]
    sample.write_text("\ufeff" + "\r\n".join([*lines, "", "ID_padded_any ,0.5"]) + "\r\n", encoding="utf-8")
    answer, unanswered = submission(sample, _answers([*names, "ID_padded"]), PRIOR, 1e-5)
    assert unanswered == 0
    write_submission(answer, sample, tmp_path / "submission.csv")
    written = [line.rsplit(",", 1)[0] for line in (tmp_path / "submission.csv").read_text().splitlines()]
    assert written == [line.rsplit(",", 1)[0] for line in [*lines, "ID_padded_any ,0.5"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"Id_image,Label\nx,1\n", "no column ID"),
        (b"ID,Label\n", "contains no ids"),
        (b"ID,Label\nID_a_any,0.5\nID_b,0.5\n", r"first ID_b \(line 3\)"),
        (b"ID,Label\nID_a_any,0.5\n,0.5\n\nID_b,0.5\n", r"first ID_b \(line 5\)"),
        (b"ID,Label\nID_a_any,0.5,7\n", "line 2 has 3 fields"),
    ],
)
def test_what_is_no_sample_is_refused_in_plain_words(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        submission(tmp_path / "sample.csv", _answers(["ID_a"]), PRIOR, 1e-5)
    assert "sample.csv" in str(error.value)
    assert "chema" not in str(error.value)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6) | st.from_regex(
    r"['=+@\t\r\n-].{0,3}", fullmatch=True
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
@settings(max_examples=80)
def test_escaped_tables_hold_no_formula_and_read_back_exactly(rows: list[tuple[str, str]]) -> None:
    table = pl.DataFrame({"study": [a for a, _ in rows], "slice": [b for _, b in rows], "z_mm": -1.5})
    with TemporaryDirectory() as folder:
        file = Path(folder) / "slices.csv"
        write_csv(table, file)
        cells = [
            cell for row in csv.reader(io.StringIO(file.read_bytes().decode(), newline="")) for cell in row
        ]
        assert not any(cell.startswith(tuple("=+@\t\r\n")) for cell in cells)
        assert not any(cell.startswith("-") and cell != "-1.50000000" for cell in cells)
        assert_frame_equal(read_escaped(file), table)


def test_a_prediction_with_formulas_for_ids_is_scored_against_the_ids_themselves(tmp_path: Path) -> None:
    names = ["=1+1", "-2", "'q", "ID_a"]
    table = _answers(names).with_columns(study=pl.col("slice"), z_mm=pl.lit(-1.0))
    write_csv(table, tmp_path / "slices.csv")
    wide = pl.DataFrame({"name": names} | {c: [0, 1, 0, 1] for c in CLASSES})
    wide.write_csv(tmp_path / "labels.csv")
    loss = score_answer(tmp_path / "slices.csv", tmp_path / "labels.csv")
    chances = table.select(CLASSES).to_numpy()
    right = np.where(wide.select(CLASSES).to_numpy() == 1, chances, 1 - chances)
    assert loss.value == pytest.approx(-(np.log(np.maximum(right, 1e-15)) @ CLASS_WEIGHTS).mean(), rel=1e-3)
    with pytest.raises(UsageError, match=r"none\.csv: not a table that predict wrote"):
        score_answer(tmp_path / "none.csv", tmp_path / "labels.csv")
