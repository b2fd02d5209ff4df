"""Usual headers, many at a time: the way most slices of a large set are read.

1. :func:`read_block`: the first 2 kB of each file, into one array (file, byte); 8 kB of those that need them.
2. The elements are walked in step (DICOM PS3.5 7.1): each pass of the loop moves every file on by one
   element, so that Python is paid once an element and not once an element and file.
3. The text values are cut out of all files at once and parsed as one table.
4. Only what is plainly a good CT slice stays: little endian, one frame, ASCII, a sound rescale, all pixels
   there. Every other file is named, and :func:`rsna_seq.imaging.dicom.read_headers` says what it is.

Where a header is taken here, it holds what ``read_headers`` reads from the same file.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from rsna_seq.imaging.archives import MARK
from rsna_seq.imaging.dicom import SHORTS, TEXTS
from rsna_seq.imaging.elements import LONG_VRS, PIXELS, UNDEFINED
from rsna_seq.imaging.plain import plain_headers
from rsna_seq.imaging.sources import open_file

FIRST = (2048, 8192)
"""Bytes of each file that are read, and once more where they do not hold the header; the competition's
headers take 700 to 1,100."""
_LONGEST = 256
"""Bytes of the longest text value that is read here."""
_MAGIC = 132
_TAGS = np.array([tag_for_keyword(k) for k in (*TEXTS, *SHORTS)], dtype=np.uint32)
_SORTED = np.argsort(_TAGS)
_SEPARATOR, _NEWLINE = 0x1F, 0x0A
_VR_IS_LONG = np.zeros(1 << 16, dtype=bool)
_VR_IS_LONG[[int.from_bytes(vr, "little") for vr in LONG_VRS]] = True
_VR_IS_VR = np.zeros(1 << 16, dtype=bool)
_VR_IS_VR[[a | b << 8 for a in range(65, 91) for b in range(65, 91)]] = True
_JPEG = "1.2.840.10008.1.2.4."
_USUAL = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian), str(RLELossless))
assert sys.byteorder == "little", "words of the header are read as the machine's own"


@dataclass
class _Walked:
    """Where each element lies in each file: what step 2 leaves behind.

    Attributes:
        heads: (file, byte) uint8.
        at: (element, file) first byte of the value, in order of TEXTS and SHORTS.
        length: (element, file) bytes of the value; -1 where it is absent.
        pixels: (file,) first byte of the value of PixelData.
        pixel_length: (file,) its declared length; -1 for encapsulated pixels.
        syntax: (file,) TransferSyntaxUID.
        usual: (file,) nothing met so far but what is usual.
    """

    heads: NDArray[np.uint8]
    at: NDArray[np.int64]
    length: NDArray[np.int64]
    pixels: NDArray[np.int64]
    pixel_length: NDArray[np.int64]
    syntax: NDArray[np.str_]
    usual: NDArray[np.bool_]

    @property
    def words(self) -> NDArray[np.uint16]:
        """All bytes as 16-bit words, file after file."""
        return self.heads.view(np.uint16).ravel()

    @property
    def row(self) -> int:
        """Words from one file to the next."""
        return int(self.heads.shape[1]) // 2

    @property
    def last(self) -> int:
        """Words of a file up to which an element may begin."""
        return (int(self.heads.shape[1]) - _LONGEST) // 2 - 6


def read_block(
    root: str, names: Sequence[str], sizes: Sequence[int], mtimes_ns: Sequence[int]
) -> tuple[pl.DataFrame, list[int]]:
    """Read the headers of some files.

    Args:
        root: Folder that the names are relative to.
        names: Paths of files, or members of archives.
        sizes: Bytes of each, as listed.
        mtimes_ns: When each was last changed, as listed.

    Returns:
        Plain headers: the columns of COLUMNS, and ``at``, the file's index. And the indices of all other
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
    """Read the headers of some files from so many first bytes of each."""
    heads, same = _heads(root, names, sizes, mtimes_ns, first)
    walked = _walk(heads, same)
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
    """The first bytes of each file, and whether it is still what was listed."""
    wide = first + _LONGEST  # a value is cut out of a row without looking where the row ends
    heads = np.zeros((len(names), wide), dtype=np.uint8)
    same = np.zeros(len(names), dtype=bool)
    prefix, bytes_ = root.rstrip("/") + "/", memoryview(heads.reshape(-1))  # type: ignore[arg-type]
    for i, name in enumerate(names):
        row = bytes_[i * wide : i * wide + first]
        try:
            if MARK in name:
                with open_file(prefix + name) as file:
                    file.readinto(row)  # type: ignore[attr-defined]
                same[i] = True
                continue
            handle = os.open(prefix + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.readv(handle, (row,))
                stat = os.fstat(handle)
            finally:
                os.close(handle)
            same[i] = stat.st_size == sizes[i] and stat.st_mtime_ns == mtimes_ns[i]
        except OSError:
            continue
    return heads, same


def _walk(heads: NDArray[np.uint8], usual: NDArray[np.bool_]) -> _Walked:
    """Walk over the elements of all files in step."""
    files = len(heads)
    magic = np.ascontiguousarray(heads[:, 128:_MAGIC]).view("S4")[:, 0] == b"DICM"
    walked = _Walked(
        heads=heads,
        at=np.zeros((len(_TAGS), files), dtype=np.int64),
        length=np.full((len(_TAGS), files), -1, dtype=np.int64),
        pixels=np.full(files, -1, dtype=np.int64),
        pixel_length=np.full(files, -1, dtype=np.int64),
        syntax=np.full(files, "", dtype="U64"),
        usual=usual & magic,
    )
    _walk_elements(walked, _walk_meta(walked))
    walked.usual &= walked.pixels >= 0
    return walked


def _walk_meta(walked: _Walked) -> NDArray[np.int64]:
    """Walk over the file meta group and note the transfer syntax; the word at which the data set begins."""
    words, row, last = walked.words, walked.row, walked.last
    at = np.full(len(walked.heads), _MAGIC // 2)
    begin_of, length_of = np.zeros_like(at), np.zeros_like(at)
    files = np.flatnonzero(walked.usual)
    while files.size:
        word = files * row + at[files]
        inside = words[word] == 2
        files, word = files[inside], word[inside]
        long = _VR_IS_LONG[words[word + 2]]
        length = np.where(long, _long(words, word + 4), words[word + 3])
        begin = at[files] + np.where(long, 6, 4)
        named = words[word + 1] == 0x10
        begin_of[files[named]], length_of[files[named]] = begin[named], length[named]
        at[files] = np.minimum(begin + length // 2, last)
        fits = (length % 2 == 0) & (at[files] < last)
        walked.usual[files[~fits]] = False
        files = files[fits]
    everyone = np.arange(len(at))
    text = _cut(walked.heads, everyone, 2 * begin_of, np.minimum(length_of, 64), 64).view("S64")[:, 0]
    for name in np.unique(text):
        syntax = name.decode("ascii", "replace").strip(" \0")
        walked.syntax[text == name] = syntax
        if syntax not in _USUAL and not syntax.startswith(_JPEG):
            walked.usual[text == name] = False
    return at


def _long(words: NDArray[np.uint16], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """A 32-bit length in two words."""
    length: NDArray[np.int64] = words[at] + (words[at + 1].astype(np.int64) << 16)
    return length


def _walk_elements(walked: _Walked, at: NDArray[np.int64]) -> None:
    """Walk over the data set of each file up to its pixels, and note where each wanted value lies."""
    words, row, last = walked.words, walked.row, walked.last
    implicit = walked.syntax == ImplicitVRLittleEndian
    before = np.zeros(len(at), dtype=np.uint32)
    files = np.flatnonzero(walked.usual)
    while files.size:
        word = files * row + at[files]
        tag = (words[word].astype(np.uint32) << 16) | words[word + 1]
        vr, bare = words[word + 2], implicit[files]
        long = _VR_IS_LONG[vr] & ~bare
        length = np.where(long, _long(words, word + 4), words[word + 3])
        length = np.where(bare, _long(words, word + 2), length)
        begin = at[files] + np.where(long, 6, 4)
        end, there = begin + length // 2, tag == PIXELS
        good = (tag > before[files]) & (bare | _VR_IS_VR[vr]) & (tag <= PIXELS)
        good &= there | ((length % 2 == 0) & (end < last))
        walked.usual[files[~good]] = False
        found = files[good & there]
        walked.pixels[found] = 2 * begin[good & there]
        declared = length[good & there]
        walked.pixel_length[found] = np.where(declared == UNDEFINED, -1, declared)
        go = good & ~there
        files, tag, end = files[go], tag[go], end[go]
        _note(walked, files, tag, 2 * begin[go], length[go])
        at[files], before[files] = end, tag


def _note(
    walked: _Walked,
    files: NDArray[np.int64],
    tag: NDArray[np.uint32],
    begin: NDArray[np.int64],
    length: NDArray[np.int64],
) -> None:
    """Note where the values of wanted elements lie."""
    slot = np.minimum(np.searchsorted(_TAGS[_SORTED], tag), len(_TAGS) - 1)
    element = _SORTED[slot]
    wanted = _TAGS[element] == tag
    walked.at[element[wanted], files[wanted]] = begin[wanted]
    walked.length[element[wanted], files[wanted]] = length[wanted]


def _cut(
    heads: NDArray[np.uint8],
    files: NDArray[np.int64],
    at: NDArray[np.int64],
    length: NDArray[np.int64],
    width: int,
) -> NDArray[np.uint8]:
    """Cut one value out of each file, (file, width), zeros behind its end."""
    reach = np.arange(width)
    value: NDArray[np.uint8] = heads.reshape(-1)[(files * heads.shape[1] + at)[:, None] + reach]
    value[reach >= length[:, None]] = 0
    return value


def _shorts(walked: _Walked, files: NDArray[np.int64]) -> list[pl.Series]:
    """16-bit values, -1 where absent, and where the pixels lie."""
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


def _values(walked: _Walked) -> tuple[NDArray[np.int64], list[pl.Series]]:
    """The usual files, and their text values by keyword: written as one table, parsed at once."""
    odd_shorts = ~np.isin(walked.length[len(TEXTS) :], (-1, 2)).all(axis=0)
    files = np.flatnonzero(walked.usual & ~odd_shorts & (walked.length[: len(TEXTS)] <= _LONGEST).all(axis=0))
    fine = np.ones(len(files), dtype=bool)
    pieces, keep = [], []
    for i in range(len(TEXTS)):
        length = walked.length[i, files]
        width = max(0, int(length.max(initial=0)))
        value = _cut(walked.heads, files, walked.at[i, files], length, width)
        inside = np.arange(width) < length[:, None]
        last = np.arange(width) == length[:, None] - 1  # a value may be padded by one zero
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
