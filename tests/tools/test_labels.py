"""``labels``: round trip of files and tables; each library gets the type of table that it gave."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.tools import labels


def long_text(names: tuple[str, ...]) -> str:
    rows = [f"{name}_{c},{int(c in ('subdural', 'any'))}\n" for name in names for c in CLASSES]
    return "ID,Label\n" + "".join(rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "stage_2_train.csv"
    path.write_text(long_text(("ID_b2", "ID_a1", "7.8.9")), encoding="utf-8")
    return path


def test_long_to_wide_and_back_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    wide, back = tmp_path / "wide.csv", tmp_path / "long.csv"
    assert labels.run(source, wide) == f"3 rows, wide, in {wide}"
    assert wide.read_text(encoding="utf-8").splitlines()[0] == "name," + ",".join(CLASSES)
    assert labels.run(wide, back) == f"18 rows, long, in {back}"
    assert back.read_bytes() == source.read_bytes()


def test_each_library_gets_its_own_table_back(source: Path) -> None:
    ours, theirs = pl.read_csv(source), pd.read_csv(source)
    assert isinstance(labels.turn(ours), pl.DataFrame)
    assert isinstance(labels.turn(theirs), pd.DataFrame)
    assert_frame_equal(labels.turn(labels.turn(ours)), ours)
    pd.testing.assert_frame_equal(labels.turn(labels.turn(theirs)), theirs)


def test_images_listed_twice_become_one(source: Path, tmp_path: Path) -> None:
    text = source.read_text(encoding="utf-8")
    source.write_text(
        text + text.split("\n", 1)[1][: text.index("ID_a1") - len("ID,Label\n")], encoding="utf-8"
    )
    assert labels.run(source, tmp_path / "wide.csv").startswith("3 rows")


def test_what_contradicts_itself_is_refused_and_leaves_no_file(source: Path, tmp_path: Path) -> None:
    with source.open("a", encoding="utf-8") as file:
        file.writelines(f"ID_b2_{c},1\n" for c in CLASSES)
    with pytest.raises(UsageError, match=r"1 slices have conflicting labels: ID_b2 \(line 20\)"):
        labels.run(source, tmp_path / "wide.csv")
    assert not (tmp_path / "wide.csv").exists()


def test_a_target_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "long.csv", tmp_path / "thesis.txt"
    source.write_text("ID,Label\n" + "".join(f"ID_a_{c},0\n" for c in CLASSES), encoding="utf-8")
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not overwritten"):
        labels.run(source, target)
    assert target.read_text(encoding="utf-8") == "mine"
