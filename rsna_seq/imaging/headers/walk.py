"""Parse the elements of many headers in step (DICOM PS3.5 7.1): step 2 of ``headers.batch``."""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pydicom.valuerep import STANDARD_VR

from rsna_seq.imaging.headers.elements import LONG_VRS, PIXELS, UNDEFINED
from rsna_seq.imaging.headers.fields import SHORTS, TEXTS

LONGEST = 256
"""Maximum length of a text value in bytes."""
_MAGIC = 132
_TAGS = np.array([tag_for_keyword(k) for k in (*TEXTS, *SHORTS)], dtype=np.uint32)
_SORTED = np.argsort(_TAGS)
_VR_IS_LONG = np.zeros(1 << 16, dtype=bool)
_VR_IS_LONG[[int.from_bytes(vr, "little") for vr in LONG_VRS]] = True
_VR_IS_VR = np.zeros(1 << 16, dtype=bool)
_VR_IS_VR[[int.from_bytes(vr.encode(), "little") for vr in STANDARD_VR]] = True
_VRS = np.array(
    [
        [int.from_bytes(vr.encode(), "little") for vr in (names[0], names[-1])]
        for names in (dictionary_VR(int(tag)).split(" or ") for tag in _TAGS)
    ]
)
"""(element, 2) value representations of the wanted elements in the standard."""
_OW, _OB = (int.from_bytes(vr, "little") for vr in (b"OW", b"OB"))
_PER_FRAME = tag_for_keyword("PerFrameFunctionalGroupsSequence")
_OBJECTS = b"1.2.840.10008.5.1.4."
_LONGEST_SYNTAX = 64
_JPEG = "1.2.840.10008.1.2.4."
_USUAL = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian), str(RLELossless))
assert sys.byteorder == "little", "words of the header are read in native byte order"


@dataclass
class Walked:
    """Position of each element in each file: the result of step 2.

    Attributes:
        heads: (file, byte) uint8.
        at: (element, file) first byte of the value, in order of TEXTS and SHORTS.
        length: (element, file) length of the value in bytes; -1 if it is absent.
        pixels: (file,) first byte of the value of PixelData.
        pixel_length: (file,) its declared length; -1 for encapsulated pixels.
        syntax: (file,) TransferSyntaxUID.
        usual: (file,) whether all elements so far are typical.
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
        """All bytes as 16-bit words, file by file."""
        return self.heads.view(np.uint16).ravel()

    @property
    def row(self) -> int:
        """Number of words per file."""
        return int(self.heads.shape[1]) // 2

    @property
    def last(self) -> int:
        """Position in words up to which an element may start."""
        return (int(self.heads.shape[1]) - LONGEST) // 2 - 6


def walk(heads: NDArray[np.uint8], usual: NDArray[np.bool_]) -> Walked:
    """Parse the elements of all files in step.

    Args:
        heads: (file, byte) the first bytes of each file, followed by LONGEST bytes of padding.
        usual: (file,) files to parse.
    """
    files = len(heads)
    magic = np.ascontiguousarray(heads[:, 128:_MAGIC]).view("S4")[:, 0] == b"DICM"
    walked = Walked(
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


def _walk_meta(walked: Walked) -> NDArray[np.int64]:
    """Parse the file meta group and store the transfer syntax; return the first word of the data set."""
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
        strange = named & (length > _LONGEST_SYNTAX)
        if (classed := words[word + 1] == 2).any():
            strange[classed] |= ~_of_images(walked.heads, files[classed], 2 * begin[classed], length[classed])
        at[files] = np.minimum(begin + length // 2, last)
        fits = (length % 2 == 0) & (at[files] < last) & ~strange
        walked.usual[files[~fits]] = False
        files = files[fits]
    everyone = np.arange(len(at))
    wide = _LONGEST_SYNTAX
    text = cut(walked.heads, everyone, 2 * begin_of, length_of, wide).view(f"S{wide}")[:, 0]
    for name in np.unique(text):
        syntax = name.decode("ascii", "replace").strip(" \0")
        walked.syntax[text == name] = syntax
        if syntax not in _USUAL and not syntax.startswith(_JPEG):
            walked.usual[text == name] = False
    return at


def _of_images(
    heads: NDArray[np.uint8], files: NDArray[np.int64], at: NDArray[np.int64], length: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether MediaStorageSOPClassUID is a class of the standard, other than DICOMDIR."""
    wide = len(_OBJECTS)
    same: NDArray[np.bool_] = cut(heads, files, at, length, wide).view(f"S{wide}")[:, 0] == _OBJECTS
    return same


def _long(words: NDArray[np.uint16], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """A 32-bit length from two words."""
    length: NDArray[np.int64] = words[at] + (words[at + 1].astype(np.int64) << 16)
    return length


def _walk_elements(walked: Walked, at: NDArray[np.int64]) -> None:
    """Parse the data set of each file up to the pixels, and store the position of each wanted value."""
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
        good &= (there | ((length % 2 == 0) & (end < last))) & (tag != _PER_FRAME)
        if there.any():
            good &= ~there | bare | (vr == _OW) | (vr == _OB)
        walked.usual[files[~good]] = False
        found = files[good & there]
        walked.pixels[found] = 2 * begin[good & there]
        declared = length[good & there]
        walked.pixel_length[found] = np.where(declared == UNDEFINED, -1, declared)
        go = good & ~there
        files, tag, end = files[go], tag[go], end[go]
        _note(walked, files, tag, np.where(bare, 0, vr)[go], 2 * begin[go], length[go])
        at[files], before[files] = end, tag


def _note(
    walked: Walked,
    files: NDArray[np.int64],
    tag: NDArray[np.uint32],
    vr: NDArray[np.uint16],
    begin: NDArray[np.int64],
    length: NDArray[np.int64],
) -> None:
    """Store the positions of wanted values; a file with another value representation is not typical."""
    slot = np.minimum(np.searchsorted(_TAGS[_SORTED], tag), len(_TAGS) - 1)
    element = _SORTED[slot]
    wanted = _TAGS[element] == tag
    strange = wanted & (vr > 0) & (vr[:, None] != _VRS[element]).all(axis=1)
    walked.usual[files[strange]] = False
    walked.at[element[wanted], files[wanted]] = begin[wanted]
    walked.length[element[wanted], files[wanted]] = length[wanted]


def cut(
    heads: NDArray[np.uint8],
    files: NDArray[np.int64],
    at: NDArray[np.int64],
    length: NDArray[np.int64],
    width: int,
) -> NDArray[np.uint8]:
    """Extract one value from each file, padded with zeros.

    Args:
        heads: (file, byte).
        files: Indices of the files.
        at: First byte of the value, by file.
        length: Length of the value in bytes, by file.
        width: Width of the result in bytes.

    Returns:
        (file, width) uint8.
    """
    reach = np.arange(width)
    value: NDArray[np.uint8] = heads.reshape(-1)[(files * heads.shape[1] + at)[:, None] + reach]
    value[reach >= length[:, None]] = 0
    return value
