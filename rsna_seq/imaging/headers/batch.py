"""Vectorised reader for typical headers, which reads most slices of a large set.

1. :func:`read_block` reads the first 2 kB of each file into one array (file, byte); 8 kB of files that need
   it.
2. The elements of all files are parsed in step (DICOM PS3.5 7.1): each iteration moves every file on by one
   element, so that the cost of Python is per element and not per element and file.
3. The text values of all files are extracted at once and parsed as one table.
4. Only plainly valid CT slices are accepted: little endian, one frame, ASCII, a valid rescale, complete
   pixels. All other files are returned, and :func:`rsna_seq.imaging.headers.single.read_headers` reads them.

An accepted header has the same values that ``read_headers`` reads from the same file.
"""

from collections.abc import Sequence
from operator import eq

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.imaging.headers.checks import plain_headers
from rsna_seq.imaging.headers.fields import SHORTS, TEXTS
from rsna_seq.imaging.headers.walk import LONGEST, Walked, cut, walk
from rsna_seq.imaging.sources import read_first

FIRST = (2048, 8192)
"""Bytes that are read of each file, first and second try; headers of the competition take 700 to 1,100."""
_SEPARATOR, _NEWLINE = 0x1F, 0x0A


def read_block(
    root: str, names: Sequence[str], sizes: Sequence[int], mtimes_ns: Sequence[int]
) -> tuple[pl.DataFrame, list[int]]:
    """Read the headers of some files.

    Args:
        root: Folder that the names are relative to.
        names: Paths of files, or members of archives.
        sizes: Size of each in bytes, when listed.
        mtimes_ns: Modification time of each, when listed.

    Returns:
        Accepted headers: the columns of COLUMNS, and ``at``, the file's index. And the indices of all other
        files.
    """
    plain, odd = _read(root, names, sizes, mtimes_ns, FIRST[0])
    for first in FIRST[1:] if odd else ():
        left, left_sizes, left_times = ([column[i] for i in odd] for column in (names, sizes, mtimes_ns))
        more, still = _read(root, left, left_sizes, left_times, first)  # type: ignore[arg-type]
        known = pl.Series("at", odd, dtype=plain.schema["at"])
        plain = pl.concat([plain, more.with_columns(at=known.gather(more["at"]))])
        odd = [odd[i] for i in still]
    return plain, odd


def _read(
    root: str, names: Sequence[str], sizes: Sequence[int], mtimes_ns: Sequence[int], first: int
) -> tuple[pl.DataFrame, list[int]]:
    """Read the headers of some files from the first bytes of each."""
    heads, same = _heads(root, names, sizes, mtimes_ns, first)
    walked = walk(heads, same)
    files, values = _values(walked)
    table = pl.DataFrame(_shorts(walked, files) + values)
    table = table.with_columns(at=pl.Series(files), size=pl.Series(np.asarray(sizes, np.int64)[files]))
    plain = plain_headers(table)
    odd = np.ones(len(names), dtype=bool)
    odd[plain["at"].to_numpy()] = False
    return plain, np.flatnonzero(odd).tolist()


def _heads(
    root: str, names: Sequence[str], sizes: Sequence[int], mtimes_ns: Sequence[int], first: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read the first bytes of each file, and check that it did not change since it was listed."""
    wide = first + LONGEST  # values are extracted from a row without checking where the row ends
    heads = np.zeros((len(names), wide), dtype=np.uint8)
    prefix, memory = root.rstrip("/") + "/", memoryview(heads.reshape(-1))  # type: ignore[arg-type]
    rows = [memory[at : at + first] for at in range(0, heads.size, wide)]
    found = read_first([prefix + name for name in names], rows)
    same = np.fromiter(map(eq, found, zip(sizes, mtimes_ns, strict=True)), dtype=bool, count=len(names))
    return heads, same


def _shorts(walked: Walked, files: NDArray[np.int64]) -> list[pl.Series]:
    """Return 16-bit values, -1 if absent, and the offset of the pixels."""
    words, row = walked.words, walked.row
    columns = []
    for i, keyword in enumerate(SHORTS, start=len(TEXTS)):
        value = words[files * row + walked.at[i, files] // 2].astype(np.int32)
        columns.append(pl.Series(keyword, np.where(walked.length[i, files] == 2, value, -1)))
    return [
        *columns,
        pl.Series("pixels", walked.pixels[files]),
        pl.Series("pixel_length", walked.pixel_length[files]),
        pl.Series("transfer_syntax", walked.syntax[files].tolist(), dtype=pl.String),
    ]


def _values(walked: Walked) -> tuple[NDArray[np.int64], list[pl.Series]]:
    """Return the typical files, and their text values by keyword, parsed as one table."""
    odd_shorts = ~np.isin(walked.length[len(TEXTS) :], (-1, 2)).all(axis=0)
    files = np.flatnonzero(walked.usual & ~odd_shorts & (walked.length[: len(TEXTS)] <= LONGEST).all(axis=0))
    fine = np.ones(len(files), dtype=bool)
    pieces, keep = [], []
    for i in range(len(TEXTS)):
        length = walked.length[i, files]
        width = max(0, int(length.max(initial=0)))
        value = cut(walked.heads, files, walked.at[i, files], length, width)
        inside = np.arange(width) < length[:, None]
        last = np.arange(width) == length[:, None] - 1  # a value may have one zero byte as padding
        fine &= ~((inside & (value < 0x20) & ~(last & (value == 0))) | (value > 0x7E)).any(axis=1)
        end = np.full((len(files), 1), _NEWLINE if i == len(TEXTS) - 1 else _SEPARATOR, dtype=np.uint8)
        pieces += [value, end]
        keep += [value != 0, end != 0]
    table, kept = np.concatenate(pieces, axis=1)[fine], np.concatenate(keep, axis=1)[fine]
    if not fine.any():
        return files[:0], [pl.Series(k, [], dtype=pl.String) for k in TEXTS]
    parsed = pl.read_csv(
        table[kept].tobytes(),
        has_header=False,
        separator=chr(_SEPARATOR),
        quote_char=None,
        new_columns=list(TEXTS),
        schema_overrides=[pl.String] * len(TEXTS),
    )
    assert len(parsed) == fine.sum(), "a value broke the table"
    return files[fine], parsed.select(pl.all().fill_null("").str.strip_chars(" ")).get_columns()
