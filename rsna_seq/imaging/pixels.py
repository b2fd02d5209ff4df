"""Read the pixels of one slice in Hounsfield units.

Stored values -> correction of a proven 12-bit wrap -> rescale (DICOM PS3.3 C.11.1.1.2) -> padding set to air.
"""

import hashlib
import itertools
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.archives import member_of
from rsna_seq.imaging.decoder import shared_decoder
from rsna_seq.imaging.frame_limits import must_be_plausible_frame
from rsna_seq.imaging.headers.elements import deflated_data
from rsna_seq.imaging.other_formats import OTHER_FORMATS, read_other
from rsna_seq.imaging.sources import must_be, must_be_same, open_file, read_range, verify
from rsna_seq.imaging.volume import AIR_HU
from rsna_seq.imaging.wrap import Wrap, judge, may_be_wrapped, unwrapped
from rsna_seq.reasons import ExclusionError, Reason

_HIGHEST = 32767
_LIMITS = {np.dtype(np.int16): (-32768, 32767), np.dtype(np.uint16): (0, 65535)}
"""Types of stored values that are rescaled in place in 16 bits."""
_MOST_ROOM = 128 << 20
"""Size of the buffer that is reused between studies: 256 slices of 512 x 512."""
_DENSEST_HU = 4095
"""Metal saturates 12-bit scanners at this value; others go higher, but only in few pixels."""


class PixelBuffer(threading.local):
    """Reusable memory for the pixels of a study: allocating new pages takes longer than the computation."""

    _kept: NDArray[np.int16] | None = None

    def take(self, shapes: Sequence[tuple[int, int]]) -> list[NDArray[np.int16]]:
        """Return one array per slice; the arrays of this thread's previous call are overwritten.

        Args:
            shapes: Rows and columns of each slice.

        Raises:
            EnvironmentFaultError: There is not enough memory.
        """
        ends = list(itertools.accumulate(rows * columns for rows, columns in shapes))
        if not ends:
            return []
        if self._kept is None or self._kept.size < ends[-1]:
            self._kept = None  # release the old buffer before allocating the new one
            try:
                self._kept = np.empty(ends[-1], dtype=np.int16)
            except MemoryError as error:
                raise EnvironmentFaultError(
                    f"cache: there is not enough memory for the {2 * ends[-1] / 1e9:,.1f} GB of pixels of "
                    "one study; free memory, or use fewer workers"
                ) from error
        room = self._kept
        if room.nbytes > _MOST_ROOM:
            self._kept = None
        return [room[e - r * c : e].reshape(r, c) for e, (r, c) in zip(ends, shapes, strict=True)]


def read_hu(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    out: NDArray[np.int16] | None = None,
    *,
    wrapped_series: bool = False,
) -> NDArray[np.int16]:
    """Read the pixels of a slice in Hounsfield units.

    Args:
        path: The file, or a member of an archive.
        header: A row of SLICES.
        out: (rows, columns) int16, contiguous output array; new memory would take as much time as the
            computation.
        wrapped_series: Result of :func:`series_is_wrapped` for the slice's series.

    Returns:
        (rows, columns) int16 HU; padding and values below -1024 are set to air.

    Raises:
        ExclusionError: The pixels are truncated, cannot be decoded, or are not HU; the file is too small for
            the frame declared in its header; or the file changed since it was indexed.
    """
    return read_pixels(path, header, out, wrapped_series=wrapped_series)[0]


def read_pixels(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    out: NDArray[np.int16] | None = None,
    *,
    wrapped_series: bool = False,
) -> tuple[NDArray[np.int16], bool]:
    """:func:`read_hu`, and whether a 12-bit wrap was corrected."""
    must_be_plausible_frame(header)
    if out is None:
        out = np.empty((header["rows"], header["columns"]), dtype=np.int16)
    hu, wrapped = hu_of(_stored(os.fspath(path), header, out), header, out, wrapped_series=wrapped_series)
    _must_be_plausible(hu)
    return hu, wrapped


def hu_of(
    stored: NDArray[np.integer],
    header: Mapping[str, Any],
    out: NDArray[np.int16] | None = None,
    *,
    wrapped_series: bool = False,
) -> tuple[NDArray[np.int16], bool]:
    """Convert the stored values of a slice to HU, and say whether a 12-bit wrap was corrected.

    Args:
        stored: (rows, columns) stored values.
        header: bits_stored, signed, slope, intercept and padding, as in a row of SLICES.
        out: Output array as in :func:`read_hu`; it may share memory with the stored values.
        wrapped_series: Whether another slice of the series proves the wrap.
    """
    slope, intercept, padding, wrapped = header["slope"], header["intercept"], header["padding"], False
    if may_be_wrapped(header["bits_stored"], signed=header["signed"], slope=slope, intercept=intercept):
        said = judge(stored, slope=slope, intercept=intercept, padding=padding)
        wrapped = said is Wrap.PROVEN or (said is Wrap.OPEN and wrapped_series)
    hu = to_hu(stored, slope=slope, intercept=intercept, padding=padding, wrapped=wrapped, out=out)
    return hu, wrapped


def series_is_wrapped(folder: str | os.PathLike[str], headers: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the values of any slice of a series prove a 12-bit wrap; undecided slices follow the series.

    Files are read only if the header allows a wrap, up to the first slice that proves it.

    Args:
        folder: Folder that the paths are relative to.
        headers: Rows of SLICES of one series.
    """
    for row in headers:
        rescale = {"slope": row["slope"], "intercept": row["intercept"]}
        if not may_be_wrapped(row["bits_stored"], signed=row["signed"], **rescale):
            continue
        try:
            must_be_plausible_frame(row)
            room = np.empty((row["rows"], row["columns"]), dtype=np.int16)
            stored = _stored(os.path.join(folder, row["file"]), row, room)  # noqa: PTH118
        except ExclusionError:  # the reason is reported when the slice is read
            continue
        if judge(stored, padding=row["padding"], **rescale) is Wrap.PROVEN:
            return True
    return False


def to_hu(
    stored: NDArray[np.integer],
    *,
    slope: float,
    intercept: float,
    bits_stored: int = 16,
    signed: bool = True,
    padding: int | None = None,
    wrapped: bool | None = None,
    out: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Convert stored values to Hounsfield units (DICOM PS3.3 C.11.1.1.2); padding becomes air.

    Args:
        stored: Stored values, any shape.
        slope: RescaleSlope.
        intercept: RescaleIntercept, in HU.
        bits_stored: BitsStored.
        signed: Whether PixelRepresentation is 1.
        padding: PixelPaddingValue; such pixels are air.
        wrapped: Whether to correct a 12-bit wrap; None corrects it if these values alone prove it.
        out: int16 output array of the same shape; it may share memory with the stored values.
    """
    if out is None:
        out = np.empty(np.shape(stored), dtype=np.int16)
    if wrapped is None and may_be_wrapped(bits_stored, signed=signed, slope=slope, intercept=intercept):
        wrapped = judge(stored, slope=slope, intercept=intercept, padding=padding) is Wrap.PROVEN
    if wrapped:
        stored = unwrapped(stored, slope=slope, intercept=intercept, padding=padding)
        padding = None
    low, high = _LIMITS.get(stored.dtype, (0, 0))
    if slope == 1 and intercept == int(intercept) and low <= AIR_HU - int(intercept) <= high:
        return _shifted(stored, int(intercept), padding, out)
    hu = np.rint(stored * slope + intercept)
    if padding is not None:
        hu[stored == padding] = AIR_HU
    np.clip(hu, AIR_HU, _HIGHEST, out=hu)
    out[...] = hu
    return out


def _shifted(
    stored: NDArray[np.integer], intercept: int, padding: int | None, out: NDArray[np.int16]
) -> NDArray[np.int16]:
    """Add the intercept to stored values in 16 bits; values are clipped first, so that no sum overflows."""
    air, high = AIR_HU - intercept, min(_HIGHEST - intercept, _LIMITS[stored.dtype][1])
    padded = (
        stored == padding if padding is not None and padding > air else None
    )  # smaller values become air in any case
    bounded, kind = out.view(stored.dtype), stored.dtype.type
    np.clip(stored, kind(air), kind(high), out=bounded)
    if padded is not None:
        bounded[padded] = air
    shifted = out.view(np.uint16)
    np.add(shifted, np.uint16(intercept % 65536), out=shifted)
    return out


def pixel_hash(hu: NDArray[np.int16]) -> str | None:
    """Hash to find identical images: of every eighth pixel of every eighth row.

    Noise makes each real slice unique; an image with a single value, which may occur on any scanner, has no
    hash.

    Args:
        hu: (rows, columns) HU.
    """
    some = np.ascontiguousarray(hu[::8, ::8])
    return None if some.min() == some.max() else hashlib.blake2b(some.tobytes(), digest_size=8).hexdigest()


def _must_be_plausible(hu: NDArray[np.int16]) -> None:
    """Refuse pixel values that are implausible for a head: too many pixels denser than metal."""
    some = hu[::8, ::8]
    if some.max() <= _DENSEST_HU:
        return
    dense = float((some > _DENSEST_HU).mean())
    if dense > 0.25:
        raise ExclusionError(Reason.IMPLAUSIBLE_HU, f"{dense:.0%} of the pixels are above {_DENSEST_HU:,} HU")


def _stored(path: str, header: Mapping[str, Any], out: NDArray[np.int16]) -> NDArray[np.integer]:
    """Read stored values, (rows, columns): in one read if uncompressed, otherwise decoded."""
    syntax, bits, signed = header["transfer_syntax"], header["bits_stored"], header["signed"]
    if syntax in OTHER_FORMATS:
        return read_other(path, header, out)
    if header["pixel_offset"] is None:
        must_be(path, header["file_size"], header["file_mtime_ns"])
        _must_be_whole(path)
        return shared_decoder().decode(path, header["frame"], out.shape, out)
    try:
        if syntax == DeflatedExplicitVRLittleEndian or member_of(path) is not None:
            got = _unpacked(path, header, out)
        else:
            got = _read_into(path, header, out)
    except OSError as error:
        raise ExclusionError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    if got < out.nbytes:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, f"{got:,} of {out.nbytes:,} bytes")
    if syntax == ExplicitVRBigEndian:
        out.byteswap(inplace=True)
    values: NDArray[np.integer] = out if signed else out.view(np.uint16)
    return values if bits == 16 else _low_bits(values, bits)


def _read_into(path: str, header: Mapping[str, Any], out: NDArray[np.int16]) -> int:
    """Read uncompressed pixels of a file; return the number of bytes read."""
    count, status = read_range(path, header["pixel_offset"], out.data.cast("B"))
    must_be_same(status, header["file_size"], header["file_mtime_ns"])
    return count


def _unpacked(path: str, header: Mapping[str, Any], out: NDArray[np.int16]) -> int:
    """Read uncompressed pixels of an archive member or of a deflated data set."""
    offset = header["pixel_offset"]
    must_be(path, header["file_size"], header["file_mtime_ns"])
    with open_file(path) as file:
        if header["transfer_syntax"] == DeflatedExplicitVRLittleEndian:
            raw = deflated_data(file)[offset : offset + out.nbytes]
        else:
            file.seek(offset)
            raw = file.read(out.nbytes)
        verify(file)
    out.data.cast("B")[: len(raw)] = raw
    return len(raw)


def _must_be_whole(path: str) -> None:
    """Refuse an archive member whose checksum differs; the decoding process does not check it."""
    if member_of(path) is not None:
        with open_file(path) as file:
            verify(file)


def _low_bits(values: NDArray[np.integer], bits: int) -> NDArray[np.integer]:
    """Keep BitsStored bits, in place; higher bits are not part of the value (PS3.5 8.1.1)."""
    if values.dtype == np.uint16:
        values &= np.uint16((1 << bits) - 1)
        return values
    values <<= np.int16(16 - bits)
    values >>= np.int16(16 - bits)
    return values
