"""Read the elements of one DICOM header with pydicom, with limits that do not depend on the file.

1. The file meta group (DICOM PS3.10 7.1) is parsed here; without it the transfer syntax is guessed.
2. A deflated data set is inflated up to a size limit.
3. pydicom reads the data set up to the pixels, through a reader that refuses reads beyond the end of the
   file.

This is the slow and thorough reader; :mod:`rsna_seq.imaging.headers.batch` reads typical headers in batches
and leaves all others to this module.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from rsna_seq.imaging.sources import open_file
from rsna_seq.reasons import Action, ExclusionError, Reason

PIXELS = 0x7FE00010
LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Value representations with a length field of four bytes (PS3.5 7.1.2)."""
UNDEFINED = 0xFFFFFFFF
_DIRECTORY = "1.2.840.10008.1.3.10"
_MOST_BYTES = 64 << 20
"""Maximum size of an element before the pixels."""
_MOST_READS = 1_000_000
"""A header of a thousand frames needs about 100,000."""
_MOST_INFLATED = 256 << 20
_INFLATES = 100
_STEP, _SMALL = 1 << 20, 4 << 20
"""Maximum ratio for inflating: a slice stays below 100, but its first 4 MiB may be air and exceed that."""


@dataclass(frozen=True)
class Parsed:
    """A header, and the position of the pixels.

    Attributes:
        dataset: The elements before the pixels.
        syntax: TransferSyntaxUID.
        pixels: First byte of the value of PixelData, in the file or, if deflated, in the inflated data;
            None if there is no PixelData.
        length: Declared length of PixelData; None for encapsulated pixels.
        size: Size of the file or of the inflated data, in bytes.
    """

    dataset: Dataset
    syntax: str
    pixels: int | None
    length: int | None
    size: int


class _Bounded:
    """A file wrapper that refuses reads beyond the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.reads = file, size, 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise ExclusionError(Reason.HEADER_INVALID, "too many elements for a valid header")
        left = self.size - self.file.tell()
        if count > left and count > 12:  # a tag at the end of the file is read in 8 or 12 bytes
            if count > left + _MOST_BYTES // 64:
                raise ExclusionError(Reason.LENGTH_OVERRUN, f"{count:,} bytes of {max(0, left):,}")
            raise ExclusionError(Reason.HEADER_TRUNCATED, f"{count:,} bytes of {max(0, left):,}")
        if count > _MOST_BYTES:
            raise ExclusionError(Reason.LENGTH_OVERRUN, f"an element of {count:,} bytes before the pixels")
        return self.file.read(count)


def parse(path: str) -> Parsed:
    """Read the header of a file.

    Args:
        path: A file, or a member of an archive.

    Raises:
        ExclusionError: The file is empty, cannot be opened, is not a DICOM file, or cannot be parsed.
    """
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size == 0:
                raise ExclusionError(Reason.EMPTY_FILE)
            return _parse(file, size)
    except (OSError, EOFError, zlib.error) as error:
        raise ExclusionError(Reason.UNREADABLE_FILE, type(error).__name__) from error


def inflate(packed: bytes) -> bytes:
    """Inflate a deflated data set (PS3.5 A.5), up to a size limit.

    Raises:
        ExclusionError: The data is damaged, or exceeds the size limit.
    """
    unpacker, pieces, size = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    left = packed
    try:
        while left and not unpacker.eof:
            pieces.append(unpacker.decompress(left, _STEP))
            left, size = unpacker.unconsumed_tail, size + len(pieces[-1])
            if size > min(_MOST_INFLATED, max(_SMALL, _INFLATES * (len(packed) - len(left)))):
                raise ExclusionError(
                    Reason.INFLATES_TOO_FAR, f"{len(packed):,} bytes inflate to more than {size:,}"
                )
    except zlib.error as error:
        raise ExclusionError(Reason.HEADER_INVALID, "the deflated data is damaged") from error
    return b"".join(pieces)


def deflated_data(file: BinaryIO) -> bytes:
    """Read and inflate the data set of a file in the deflated transfer syntax.

    Raises:
        ExclusionError: As :func:`inflate`.
    """
    _, start, _ = _meta(file.read(1 << 16))
    file.seek(start)
    return inflate(file.read())


def _parse(file: BinaryIO, size: int) -> Parsed:
    first = file.read(1 << 16)
    syntax, start, media = _meta(first)
    if media == _DIRECTORY:
        raise ExclusionError(Reason.DICOMDIR, action=Action.SKIPPED)
    if syntax == DeflatedExplicitVRLittleEndian:
        file.seek(start)
        inflated = inflate(file.read())
        return _read(io.BytesIO(inflated), len(inflated), 0, syntax)
    if syntax:
        return _read(file, size, start, syntax)
    return _sniffed(file, size, first, start)


def _meta(data: bytes) -> tuple[str, int, str]:
    """Transfer syntax, end of the file meta group, and MediaStorageSOPClassUID; empty if absent."""
    at = 132 if data[128:132] == b"DICM" else 0
    found: dict[int, str] = {}
    while len(data) >= at + 12 and data[at : at + 2] == b"\2\0":
        long = data[at + 4 : at + 6] in LONG_VRS
        length = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
        begin = at + (12 if long else 8)
        if begin + length > len(data):
            raise ExclusionError(Reason.HEADER_TRUNCATED, "in the file meta group")
        found[data[at + 2] | data[at + 3] << 8] = data[begin : begin + length].decode("ascii", "replace")
        at = begin + length
    return found.get(0x10, "").strip(" \0"), at, found.get(2, "").strip(" \0")


def _sniffed(file: BinaryIO, size: int, first: bytes, start: int) -> Parsed:
    """Read a data set without transfer syntax: try implicit VR, then explicit VR, if it looks valid."""
    magic = first[128:132] == b"DICM"
    group, element = struct.unpack_from("<HH", first.ljust(4, b"\0"), start if start + 4 <= len(first) else 0)
    if not magic and not (group in {2, 8} and element < 0x2000 and len(first) > 8):
        raise ExclusionError(Reason.NOT_DICOM, action=Action.SKIPPED)
    reason = ExclusionError(
        Reason.HEADER_INVALID, "no transfer syntax, and neither implicit nor explicit VR fits"
    )
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        if (syntax == ExplicitVRLittleEndian) != first[start + 4 : start + 6].isalpha():
            continue
        file.seek(0)
        try:
            parsed = _read(file, size, start, str(syntax))
        except ExclusionError as error:
            reason = error if error.reason == Reason.HEADER_TRUNCATED else reason
            continue
        if "StudyInstanceUID" in parsed.dataset or "SOPInstanceUID" in parsed.dataset:
            return parsed
    if not magic and reason.reason == Reason.HEADER_INVALID:
        raise ExclusionError(Reason.NOT_DICOM, action=Action.SKIPPED)
    raise reason


def _read(file: BinaryIO, size: int, start: int, syntax: str) -> Parsed:
    """Read the data set that starts at ``start``."""
    implicit, big = syntax == ImplicitVRLittleEndian, syntax == ExplicitVRBigEndian
    bounded: Any = _Bounded(file, size)
    file.seek(start)
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            dataset = read_dataset(bounded, implicit, not big, stop_when=_at_pixels)
    except ExclusionError:
        raise
    except RecursionError as error:
        raise ExclusionError(Reason.NESTED_TOO_DEEP) from error
    except (EOFError, struct.error) as error:
        raise ExclusionError(Reason.HEADER_TRUNCATED, type(error).__name__) from error
    except MemoryError as error:
        raise ExclusionError(Reason.LENGTH_OVERRUN, type(error).__name__) from error
    except Exception as error:  # a damaged header may raise any exception
        raise ExclusionError(Reason.HEADER_INVALID, type(error).__name__) from error
    at = file.tell()
    pixels, length = _pixel_element(file.read(12), at, implicit=implicit, big=big)
    return Parsed(dataset, syntax, pixels, length, size)


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag >= PIXELS)


def _pixel_element(mark: bytes, at: int, *, implicit: bool, big: bool) -> tuple[int | None, int | None]:
    """Offset and length of the value of PixelData, from the bytes that follow the header."""
    order = ">" if big else "<"
    if len(mark) < (8 if implicit else 12) or struct.unpack_from(f"{order}HH", mark) != (0x7FE0, 0x0010):
        return None, None
    if (
        not implicit and mark[4:6] not in LONG_VRS
    ):  # not a VR that the standard allows for pixels, but the length is known
        return at + 8, int(struct.unpack_from(f"{order}H", mark, 6)[0])
    length = struct.unpack_from(f"{order}I", mark, 4 if implicit else 8)[0]
    return at + (8 if implicit else 12), None if length == UNDEFINED else length
