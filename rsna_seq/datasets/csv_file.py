"""CSV files that users bring: read as text, whatever wrote them, and refused by file and line.

1. The bytes: UTF-8, or UTF-16 with its byte order mark; a file of other bytes is refused.
2. The header: the first line with content; comma, semicolon or tab, whichever shows known columns.
3. The records: every cell as text. Line numbers are counted only when a message needs them.
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
"""Column of :attr:`CsvFile.table` that numbers the records; :meth:`CsvFile.lines` gives their lines."""
_SEPARATORS = (",", ";", "\t")
_SHOWN = 5
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "Zstandard", b"BZh": "bzip2"}
_REMEDY = "save it as UTF-8 text with commas, semicolons or tabs between the fields"


@dataclass(frozen=True)
class CsvFile:
    """A CSV file, its known columns as text.

    Attributes:
        name: The file, for messages.
        columns: The header's names; those that are known as the caller spells them.
    """

    name: str
    columns: tuple[str, ...]
    _known: tuple[str, ...]
    _body: bytes
    """Everything below the header, UTF-8."""
    _separator: str
    _line_before: int
    """Lines before the body."""

    @property
    def padded(self) -> bool:
        """Whether a cell may begin or end with spaces."""
        return b" " in self._body or b"\t" in self._body or not self._body.isascii()

    @cached_property
    def table(self) -> pl.DataFrame:
        """The known columns, String, and ``row`` (UInt32); records without any content are left out.

        Raises:
            UsageError: A record has other fields than the header, or a quotation mark is out of place.
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
        """The lines of the file, from 1, in which some records stand, as far as that can be told."""
        wanted, last = set(rows), max(rows, default=-1)
        counted = zip(range(last + 1), self._records(), strict=False)
        return {number: line for number, (line, _) in counted if number in wanted}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line and fields of every record below the header, as far as they can be told apart."""
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
        """What is wrong with a body that does not parse, and in which line."""
        wanted = len(self.columns)
        for line, record in self._records():
            if any('"' in field or "\n" in field for field in record):
                return f"{self.name}: line {line}: a quotation mark is not closed, or stands within a field"
            if record and len(record) != wanted:
                return f"{self.name}: line {line} has {len(record)} fields, the header has {wanted}"
        return f"{self.name}: not readable as CSV; {_REMEDY}"


def open_csv(file: Path, known: Sequence[str]) -> CsvFile:
    """Read a CSV file.

    Args:
        file: Comma, semicolon or tab; UTF-8, or UTF-16 with a byte order mark; any line ends.
        known: Columns that matter, found in any case; the others are not read.

    Raises:
        UsageError: It is not there, no file, compressed, of another encoding, empty, or names a column twice.
    """
    text = _text(file)
    start = len(text) - len(text.lstrip())
    before = text[:start].rsplit(b"\n", 1)[0] + b"\n" if b"\n" in text[:start] else b""
    header, _, body = text[len(before) :].partition(b"\n")
    line = before.count(b"\n") + 1
    spelt = {name.lower(): name for name in known}
    if b"\n " in body or b"\n\t" in body:  # lines of spaces alone are blank lines
        body = re.sub(rb"(?m)^[ \t]+$", b"", body)
    blank = len(body) - len(body.lstrip(b"\n"))
    names, separator = _header(header.decode("utf-8"), spelt)
    twice = sorted({name for name in names if name in known and names.count(name) > 1})
    if twice:
        raise UsageError(f"{file}: line {line}: the column {twice[0]} stands twice in the header")
    return CsvFile(str(file), tuple(names), tuple(known), body[blank:], separator, line + blank)


def printable_names(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _text(file: Path) -> bytes:
    """The file's text as UTF-8 with line feeds."""
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
            raise UsageError(f"{file}: begins as UTF-16, but is not; {_REMEDY}") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise UsageError(f"{file}: line {_line_at(data, data.index(0))} holds a NUL byte; {_REMEDY}")
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
    """The names of the header, and the separator under which most of them are known, then that with most."""
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
