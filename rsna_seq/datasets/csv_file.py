"""Read CSV files of users as text; errors name the file and the line.

1. Encoding: UTF-8, or UTF-16 with a byte order mark; other encodings are refused.
2. Header: the first line that is not blank; the separator (comma, semicolon, tab) that gives known columns.
3. Records: every cell as text. Line numbers are computed only if a message needs them.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from rsna_seq.errors import UsageError
from rsna_seq.terminal.paths import require_file

ROW = "row"
"""Column of :attr:`CsvFile.table` with the record number; :meth:`CsvFile.lines` gives the line numbers."""
_SEPARATORS = (",", ";", "\t")
_SHOWN = 5
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "Zstandard", b"BZh": "bzip2"}
_REMEDY = "save it as UTF-8 text with commas, semicolons or tabs between the fields"


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with its known columns as text.

    Attributes:
        name: Name of the file, for messages.
        columns: Column names in the header; known names are spelled as given by the caller.
    """

    name: str
    columns: tuple[str, ...]
    _known: tuple[str, ...]
    _body: bytes
    """The text after the header, UTF-8."""
    _separator: str
    _line_before: int
    """Number of lines before the body."""

    @property
    def padded(self) -> bool:
        """Whether a cell may start or end with spaces."""
        return b" " in self._body or b"\t" in self._body or not self._body.isascii()

    @cached_property
    def table(self) -> pl.DataFrame:
        """The known columns (String) and ``row`` (UInt32), without blank records.

        Raises:
            UsageError: A record has another number of fields than the header, or a misplaced quotation mark.
        """
        places = [at for at, name in enumerate(self.columns) if name in self._known]
        names = [self.columns[at] for at in places]
        schema = {str(at): pl.String() for at in range(len(self.columns))}
        if not self._body.strip():
            return pl.DataFrame(schema={name: pl.String() for name in names} | {ROW: pl.UInt32()})
        try:
            table = pl.read_csv(
                self._body, has_header=False, separator=self._separator, schema=schema, columns=places
            )
        except pl.exceptions.PolarsError:
            raise UsageError(self._fault()) from None
        table = table.rename(dict(zip(map(str, places), names, strict=True))).with_row_index(ROW)
        blank = pl.all_horizontal(pl.col(c).is_null() | (pl.col(c).str.strip_chars() == "") for c in names)
        if table.null_count().select(names).row(0) != (0,) * len(names) or self.padded:
            table = table.filter(~blank)
        return table

    def lines(self, rows: Sequence[int]) -> dict[int, int]:
        """Line numbers of records, from 1, if they can be determined."""
        wanted, last = set(rows), max(rows, default=-1)
        counted = zip(range(last + 1), self._records(), strict=False)
        return {number: line for number, (line, _) in counted if number in wanted}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and fields of every record after the header, up to the first parse error."""
        text = io.StringIO(self._body.decode("utf-8"), newline="")
        reader = csv.reader(text, delimiter=self._separator)
        line = self._line_before + 1
        try:
            for record in reader:
                yield line, record
                line = self._line_before + 1 + reader.line_num
        except csv.Error:
            return

    def _fault(self) -> str:
        """Describe why the body cannot be parsed, with the line number."""
        wanted = len(self.columns)
        for line, record in self._records():
            if any('"' in field or "\n" in field for field in record):
                return f"{self.name}: line {line}: a quotation mark is not closed, or is inside a field"
            if record and len(record) != wanted:
                return f"{self.name}: line {line} has {len(record)} fields, the header has {wanted}"
        return f"{self.name}: not readable as CSV; {_REMEDY}"


def open_csv(file: Path, known: Sequence[str]) -> CsvFile:
    """Read a CSV file.

    Args:
        file: Separated by comma, semicolon or tab; UTF-8, or UTF-16 with a byte order mark; any line ends.
        known: Columns to read, matched without regard to case; other columns are ignored.

    Raises:
        UsageError: The file does not exist, is not a file, is compressed, empty or in another encoding, or a
            column name is repeated.
    """
    text = _text(file)
    start = len(text) - len(text.lstrip())
    before = text[:start].rsplit(b"\n", 1)[0] + b"\n" if b"\n" in text[:start] else b""
    header, _, body = text[len(before) :].partition(b"\n")
    line = before.count(b"\n") + 1
    spelt = {name.lower(): name for name in known}
    if b"\n " in body or b"\n\t" in body:  # lines that contain only spaces count as blank
        body = re.sub(rb"(?m)^[ \t]+$", b"", body)
    blank = len(body) - len(body.lstrip(b"\n"))
    names, separator = _header(header.decode("utf-8"), spelt)
    twice = sorted({name for name in names if name in known and names.count(name) > 1})
    if twice:
        raise UsageError(f"{file}: line {line}: the header has the column {twice[0]} twice")
    return CsvFile(str(file), tuple(names), tuple(known), body[blank:], separator, line + blank)


def printable_names(names: Sequence[str]) -> str:
    """Join the first few names for a message."""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _text(file: Path) -> bytes:
    """Read the file as UTF-8 text with line feeds."""
    require_file(file, "CSV")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    packed = next((kind for magic, kind in _PACKED.items() if data.startswith(magic)), None)
    if packed:
        raise UsageError(f"{file}: compressed ({packed}); unpack it first")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            raise UsageError(
                f"{file}: has a UTF-16 byte order mark, but is not valid UTF-16; {_REMEDY}"
            ) from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise UsageError(f"{file}: line {_line_at(data, data.index(0))} contains a NUL byte; {_REMEDY}")
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{file}: line {_line_at(data, error.start)} is not UTF-8; {_REMEDY}") from None
    if not data.strip():
        raise UsageError(f"{file}: empty")
    return data if b"\r" not in data else data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _line_at(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _header(line: str, spelt: dict[str, str]) -> tuple[list[str], str]:
    """Column names and separator: the one that gives the most known columns, then the most columns."""
    best: tuple[tuple[int, int], list[str], str] = ((-1, 0), [], ",")
    for separator in _SEPARATORS:
        try:
            fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            continue
        names = [spelt.get(field.strip().lower(), field.strip()) for field in fields]
        known = (sum(name in spelt.values() for name in names), len(names))
        if known > best[0]:
            best = (known, names, separator)
    return best[1], best[2]
