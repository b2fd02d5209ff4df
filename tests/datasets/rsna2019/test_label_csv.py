"""The label file: long to wide and back, and what is refused."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rsna_seq.datasets.rsna2019.label_csv import read_labels, to_long
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES, N_CLASSES

Rows = dict[str, tuple[int, ...]]


def long(rows: Rows) -> pl.DataFrame:
    ids = [f"{name}_{c}" for name in rows for c in CLASSES]
    return pl.DataFrame({"ID": ids, "Label": [v for row in rows.values() for v in row]})


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
ANSWERS = st.tuples(*[st.integers(0, 1)] * N_CLASSES)
TABLES = st.dictionaries(NAMES, ANSWERS.map(lambda row: (*row[:-1], max(row))), min_size=1, max_size=8)


@given(TABLES)
@settings(max_examples=60)
def test_long_to_wide_and_back_is_exact_in_order(rows: Rows) -> None:
    wide = read_labels(long(rows))
    assert wide["slice"].to_list() == list(rows)
    assert wide.drop("slice").rows() == list(rows.values())
    assert_frame_equal(to_long(wide), long(rows), check_dtypes=False)
    assert_frame_equal(read_labels(wide), wide)


def test_a_file_a_polars_table_and_a_pandas_table_read_alike(tmp_path: Path) -> None:
    table = long({"ID_b": (0, 1, 0, 0, 0, 1), "ID_a": (0,) * N_CLASSES})
    table.write_csv(tmp_path / "labels.csv")
    first = read_labels(tmp_path / "labels.csv")
    assert first["slice"].to_list() == ["ID_b", "ID_a"]
    for other in (table, table.to_pandas()):
        assert_frame_equal(read_labels(other), first)


def test_names_of_digits_stay_names(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(f"name,{','.join(CLASSES)}\n007,0,0,0,0,0,0\n", encoding="utf-8")
    assert read_labels(tmp_path / "wide.csv")["slice"].to_list() == ["007"]


def test_identical_duplicates_are_merged() -> None:
    table = long({"ID_a": (0, 0, 0, 0, 1, 1), "ID_b": (0,) * N_CLASSES})
    assert_frame_equal(read_labels(pl.concat([table, table.tail(6), table.head(6)])), read_labels(table))
    wide = read_labels(table)
    assert_frame_equal(read_labels(pl.concat([wide, wide])), wide)


def test_contradictions_are_refused_and_the_first_five_named() -> None:
    rows = {f"ID_{i}": (0,) * N_CLASSES for i in range(7)}
    other = long(dict.fromkeys(rows, (0, 0, 0, 0, 1, 1)))
    with pytest.raises(UsageError, match=r"7 slices have conflicting labels: ID_0, .*ID_4, \.\.\.$"):
        read_labels(pl.concat([long(rows), other]))


@pytest.mark.parametrize("value", [0.5, 2, -1, 300, None, "x"])
def test_what_is_no_label_is_refused_and_never_rounded(value: object) -> None:
    table = pd.DataFrame({"ID": [f"ID_a_{c}" for c in CLASSES], "Label": [value] * N_CLASSES})
    with pytest.raises(UsageError, match="not 0 or 1: ID_a_epidural"):
        read_labels(table)


def test_ids_without_a_class_and_images_without_all_rows_are_refused() -> None:
    table = long({"ID_a": (0,) * N_CLASSES, "ID_b": (0,) * N_CLASSES})
    with pytest.raises(UsageError, match="1 ids do not have the form IMAGE_CLASS: junk"):
        read_labels(pl.concat([table, pl.DataFrame({"ID": ["junk"], "Label": [0]})]))
    with pytest.raises(UsageError, match="1 images lack some of their six rows: ID_b"):
        read_labels(table.head(8))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "name,any\nID_a,0\n"])
def test_a_file_of_neither_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"labels\.csv"):
        read_labels(tmp_path / "labels.csv")


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv"):
        read_labels(tmp_path / "none.csv")
