"""CSVs as spreadsheets, R and Windows write them: read alike where unambiguous, else refused by line."""

import codecs
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rsna_seq.datasets.rsna2019.label_csv import read_labels
from rsna_seq.errors import UsageError
from rsna_seq.labels import CLASSES

ANSWERS = {"ID_a": (0, 0, 0, 0, 1, 1), "ID_b": (0,) * 6}
PLAIN = "ID,Label\n" + "".join(
    f"{name}_{c},{v}\n" for name, row in ANSWERS.items() for c, v in zip(CLASSES, row, strict=True)
)
WIDE = f"name,{','.join(CLASSES)}\n" + "".join(f"{n},{','.join(map(str, v))}\n" for n, v in ANSWERS.items())
_LINES = PLAIN.splitlines()
POLARS = ("polars", "schema", "Schema", "dtype", "Utf8", "ComputeError", "truncate", "infer", "chunk")


def _quoted(text: str) -> str:
    return "".join(",".join(f'"{f}"' for f in line.split(",")) + "\n" for line in text.splitlines())


ACCEPTED: dict[str, Callable[[str], bytes]] = {
    "plain": lambda t: t.encode(),
    "semicolons": lambda t: t.replace(",", ";").encode(),
    "tabs": lambda t: t.replace(",", "\t").encode(),
    "a byte order mark": lambda t: codecs.BOM_UTF8 + t.encode(),
    "UTF-16": lambda t: t.encode("utf-16"),
    "CRLF": lambda t: t.replace("\n", "\r\n").encode(),
    "CR": lambda t: t.replace("\n", "\r").encode(),
    "blank lines": lambda t: ("\n \n" + t.replace("\n", "\n\n", 4) + "\n  \n\n").encode(),
    "empty records": lambda t: (t.replace("\n", "\n,\n", 2) if t == PLAIN else t).encode(),
    "floats": lambda t: t.replace(",0", ",0.0").replace(",1", ",1.0").encode(),
    "quoted fields": lambda t: _quoted(t).encode(),
    "trailing spaces": lambda t: t.replace(",", " , ").replace("\n", "  \n").encode(),
    "a header in capitals": lambda t: (t.split("\n", 1)[0].upper() + "\n" + t.split("\n", 1)[1]).encode(),
    "no line end at the end": lambda t: t.rstrip("\n").encode(),
    "more columns": lambda t: t.replace("\n", ",\u00e9 note\n").encode(),
}


@pytest.mark.parametrize("text", [PLAIN, WIDE], ids=["long", "wide"])
@pytest.mark.parametrize("written", ACCEPTED, ids=str)
def test_what_is_unambiguous_reads_as_the_plain_file(tmp_path: Path, written: str, text: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(ACCEPTED[written](text))
    labels = read_labels(file)
    assert labels["slice"].to_list() == list(ANSWERS)
    assert labels.drop("slice").rows() == list(ANSWERS.values())


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "spaces only": (b" \n\n", "empty"),
    "a header alone": (b"ID,Label\n", "contains no labels"),
    "gzip": (b"\x1f\x8b\x08\x00", r"compressed \(gzip\)"),
    "a NUL byte": (PLAIN.encode() + b"ID_\0,1\n", "line 14 contains a NUL byte"),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), "line 1 contains a NUL byte"),
    "latin-1": (PLAIN.encode() + "ID_\u00e9_any,1\n".encode("latin-1"), "line 14 is not UTF-8"),
    "a column twice": (PLAIN.replace("ID,Label", "ID,label").replace(",", ",0,").encode(), "line 1"),
    "more fields": (PLAIN.encode() + b"ID_c_any,1,1\n", "line 14 has 3 fields, the header has 2"),
    "fewer fields": (PLAIN.encode() + b"ID_c_any\n", r"not 0 or 1: ID_c_any \(line 14\)"),
    "an open quotation mark": (PLAIN.encode() + b'"ID_c_any,1\n', "line 14: a quotation mark is not closed"),
    "a mark within a field": (b'ID,Label\nID_"a_any,1\n', "line 2: a quotation mark"),
    "no id": (PLAIN.encode() + b",1\n", r"have no image id: .*\(line 14\)"),
    "decimal commas": (PLAIN.replace(",", ";").replace("0\n", "0,5\n").encode(), r"\(line 2\)"),
    "a word": (PLAIN.replace("subdural,1", "subdural,yes").encode(), r"0 or 1: ID_a_subdural \(line 6\)"),
    "another table": (b"x;y\n1;2\n", r"neither long .* its columns are x, y"),
    "a comment first": (b"# labels, 2019\n" + PLAIN.encode(), "neither long"),
    "any = 0 and a class = 1": (
        PLAIN.replace("a_any,1", "a_any,0").encode(),
        r"ID_a \(line 2\).*fix_any=true",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_ambiguous_is_refused_by_file_and_line_in_plain_words(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    if case == "a column twice":
        content = content.replace(b"ID,0,label", b"ID,Label,label")
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_labels(file)
    assert str(file) in str(error.value)
    assert not any(word in str(error.value) for word in POLARS), error.value


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none.csv", "no such file")):
        with pytest.raises(UsageError, match=words):
            read_labels(path)


def test_blank_lines_do_not_shift_the_line_that_a_message_names(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    lines = ["", "", *_LINES[:3], "", ",", *_LINES[3:], '"ID_c_any","2"']
    file.write_text("\r\n".join(lines), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"ID_c_any \(line {len(lines)}\)"):
        read_labels(file)


def test_any_is_set_where_the_user_says_so_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(PLAIN.replace("a_any,1", "a_any,0").replace("b_any,0", "b_any,1"), encoding="utf-8")
    fixed = read_labels(file, fix_any=True)
    expected = pl.DataFrame({"slice": list(ANSWERS)}).with_columns(read_labels(_file(tmp_path)).drop("slice"))
    assert_frame_equal(fixed.drop("any"), expected.drop("any"))
    assert fixed["any"].to_list() == [1, 1]


def _file(folder: Path) -> Path:
    (folder / "plain.csv").write_text(PLAIN, encoding="utf-8")
    return folder / "plain.csv"
